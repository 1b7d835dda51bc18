"""A CUDA or ROCm GPU as a device: events on a blocked stream, a cleared L2, clocks from the driver."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from mfbench.measure.devices.base import Clocks, Look, Reading, Step, Vary, nothing
from mfbench.measure.devices.nvml import Nvml
from mfbench.measure.devices.stream import Sampler

Event, synchronize, sleep = torch.cuda.Event, torch.cuda.synchronize, torch.cuda._sleep
# taken before a provider's code runs; the sleep is a kernel that spins for so many cycles

CLEARED = 2  # times the size of L2 are written, since lines are not replaced strictly in turn
CYCLES_PER_S = 2e9  # about; whether a block was long enough is looked at afterwards
MAX_COPIES = 16


class CudaDevice:
    """Implements `mfbench.measure.devices.base.Device`, and the `Queue` that its samples are taken on."""

    def __init__(self, index: int = 0) -> None:
        self.index = index
        self.l2_bytes = int(getattr(torch.cuda.get_device_properties(index), "L2_cache_size", 0) or 0)
        self._nvml = None if torch.version.hip else Nvml.of(torch.cuda.get_device_properties(index))
        self._buffer: torch.Tensor | None = None
        self._sampler = Sampler(self)

    def synchronize(self) -> None:
        synchronize(self.index)

    def clear_cache(self) -> bool:
        """Write over more than the L2 holds. AMD's L2 is not the last level, and the size of that one is not told."""
        if not self.l2_bytes:
            return False
        if self._buffer is None:
            self._buffer = torch.empty(CLEARED * self.l2_bytes, dtype=torch.uint8, device=f"cuda:{self.index}")
        self._buffer.zero_()
        return torch.version.hip is None

    def clocks(self) -> Clocks:
        return self._nvml.clocks() if self._nvml else Clocks()

    def rotation(self, input_bytes: int) -> int:
        """Enough copies that they exceed L2 twice, where clearing is not known to reach the last level."""
        if not self.l2_bytes or torch.version.hip is None:
            return 1
        return min(MAX_COPIES, max(1, math.ceil(CLEARED * self.l2_bytes / max(1, input_bytes))))

    def sample(
        self, steps: Sequence[Step], loops: int, vary: Vary = nothing, look: Look = nothing
    ) -> tuple[Reading, Any]:
        reading, outputs = self._sampler.sample(steps, loops, vary)
        look(loops - 1, outputs)
        return reading, outputs

    def mark(self) -> Any:
        event = Event(enable_timing=True)
        event.record()
        return event

    def between(self, start: Any, end: Any) -> float:
        return start.elapsed_time(end) * 1e-3  # milliseconds

    def block(self, seconds: float) -> Any:
        sleep(int(seconds * CYCLES_PER_S))
        return self.mark()

    def passed(self, mark: Any) -> bool:
        return mark.query()
