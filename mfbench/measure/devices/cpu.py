"""The CPU as a device: what is asked for is done when the call returns, and caches stay as the calls leave them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from mfbench.measure.devices.base import Clocks, Look, Reading, Step, Vary, nothing
from mfbench.measure.devices.memory import page_faults

clock = time.perf_counter  # taken before a provider's code runs
WARM_S = 2e-3  # so long after another process ran on it a core is slower
CALM_S = 0.03  # so long, at most, until no pages are new any more
LONG_S = 0.1  # an evaluation that takes so long does not need another one before it


class CpuDevice:
    """Implements `mfbench.measure.devices.base.Device`."""

    def __init__(self) -> None:
        self._evaluation_s = 0.0  # of the last sample
        self._always_faults = False

    def synchronize(self) -> None:
        pass

    def clear_cache(self) -> bool:
        return False

    def clocks(self) -> Clocks:
        return Clocks()

    def rotation(self, input_bytes: int) -> int:
        return 1

    def sample(
        self, steps: Sequence[Step], loops: int, vary: Vary = nothing, look: Look = nothing
    ) -> tuple[Reading, Any]:
        """The evaluations before wake the threads, fill the caches and bring the cores to their speed.

        Without them a sample of few loops would be a cold one, and two like providers of which one takes a loop more
        would differ by a quarter. They go on until `WARM_S` passed without a page fault: after data moved, one of two
        like processes may have twice as many pages to touch anew. Steps that always fault, since they allocate much,
        are not waited for. Where an evaluation is long, what it costs to start cold is little beside it.
        """
        (step,) = steps
        begin = start = calm = clock()
        faults = page_faults()
        most = WARM_S if self._always_faults else CALM_S
        while start - calm < WARM_S and start - begin < most and self._evaluation_s < LONG_S:
            outputs = step()  # and kept, as below: the next one's lie elsewhere
            start = clock()
            before, faults = faults, page_faults()
            if faults != before:
                calm = start
        self._always_faults = start - calm < WARM_S
        for turn in range(loops):
            vary(turn)
            outputs = step()
            look(turn, outputs)
        elapsed = clock() - start
        self._evaluation_s = elapsed / loops
        return Reading(elapsed, before=start - begin), outputs
