"""The CPU as a device: what is asked for is done when the call returns, and caches stay as the calls leave them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from mfbench.device import Clocks, Reading, Step

clock = time.perf_counter  # taken before a provider's code runs


class CpuDevice:
    """Implements `mfbench.device.Device`."""

    def synchronize(self) -> None:
        pass

    def clear_cache(self) -> bool:
        return False

    def clocks(self) -> Clocks:
        return Clocks()

    def rotation(self, input_bytes: int) -> int:
        return 1

    def sample(self, steps: Sequence[Step], loops: int) -> tuple[Reading, Any]:
        """The evaluation before wakes the threads and fills the caches, whatever the number of loops.

        Without it a sample of one loop would be a cold one, and two like providers of which one takes a loop more
        would differ by a quarter.
        """
        (step,) = steps
        outputs = step()
        start = clock()
        for _ in range(loops):
            outputs = step()
        return Reading(clock() - start), outputs
