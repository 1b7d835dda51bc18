"""The CPU as a device: a call is complete when it returns, and caches keep what earlier calls left in them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from mfbench.measure.devices.base import NO_HOOKS, Clocks, Hooks, Reading, Step
from mfbench.measure.devices.memory import page_faults

clock = time.perf_counter  # saved before user code can monkey-patch it
WARM_S = 2e-3  # a core that ran another process is slower for about this long
LONGEST_WARM_UP_S = 0.03  # most time spent waiting for page faults to cease
LONG_S = 0.1  # evaluations longer than this need no warm-up


class CpuDevice:
    """Implements `mfbench.measure.devices.base.Device`."""

    def __init__(self) -> None:
        self._evaluation_s = 0.0  # in the last sample
        self._always_faults = False

    def synchronize(self) -> None:
        pass

    def clear_cache(self) -> bool:
        return False

    def clocks(self) -> Clocks:
        return Clocks()

    def rotation(self, input_bytes: int) -> int:
        return 1

    def sample(self, steps: Sequence[Step], loops: int, hooks: Hooks = NO_HOOKS) -> tuple[Reading, Any]:
        """Warm up threads, caches and clocks with uncounted evaluations, then time `loops` of them.

        Without the warm-up, a sample of few loops would be a cold one, and two like providers whose loop counts differ
        by one would differ by a quarter. It lasts until `WARM_S` passed without a page fault, since right after a move
        of the data one of two like processes may have twice as many new pages to touch. Steps that fault all the time,
        because they allocate a lot, are not waited for. In long evaluations the cost of a cold start does not matter.
        """
        (step,) = steps
        begin = start = calm = clock()
        faults = page_faults()
        longest = WARM_S if self._always_faults else LONGEST_WARM_UP_S
        while start - calm < WARM_S and start - begin < longest and self._evaluation_s < LONG_S:
            outputs = step()  # kept until the next ones exist, as below, so that those get other memory
            start = clock()
            before, faults = faults, page_faults()
            if faults != before:
                calm = start
        self._always_faults = start - calm < WARM_S
        for turn in range(loops):
            hooks.before(turn)
            outputs = step()
            hooks.after(turn, outputs)
        elapsed = clock() - start
        self._evaluation_s = elapsed / loops
        return Reading(elapsed, warm_up_s=start - begin), outputs
