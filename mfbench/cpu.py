"""The CPU as a device: what is asked for is done when the call returns, and caches stay as the calls leave them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from mfbench.device import Clocks, Reading, Step

clock = time.perf_counter  # taken before a provider's code runs
WARM_S = 3e-3  # so long after a pause cores run slower
LONG_S = 0.1  # an evaluation that takes so long does not need another one before it


class CpuDevice:
    """Implements `mfbench.device.Device`."""

    def __init__(self) -> None:
        self._evaluation_s = 0.0  # of the last sample

    def synchronize(self) -> None:
        pass

    def clear_cache(self) -> bool:
        return False

    def clocks(self) -> Clocks:
        return Clocks()

    def rotation(self, input_bytes: int) -> int:
        return 1

    def sample(self, steps: Sequence[Step], loops: int) -> tuple[Reading, Any]:
        """The evaluations before wake the threads, fill the caches and bring the cores to their speed.

        Without them a sample of few loops would be a cold one, and two like providers of which one takes a loop more
        would differ by a quarter. Where an evaluation is long, what it costs to start cold is little beside it.
        """
        (step,) = steps
        begin = start = clock()
        while start - begin < WARM_S and self._evaluation_s < LONG_S:
            step()
            start = clock()
        for _ in range(loops):
            outputs = step()
        elapsed = clock() - start
        self._evaluation_s = elapsed / loops
        return Reading(elapsed, before=start - begin), outputs
