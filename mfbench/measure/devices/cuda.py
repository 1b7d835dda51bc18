"""A CUDA or ROCm GPU as a device: events on a blocked stream, a cleared L2, clocks from the driver."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from mfbench.measure.devices.base import NO_HOOKS, Clocks, Hooks, Reading, Step
from mfbench.measure.devices.nvml import Nvml
from mfbench.measure.devices.stream import StreamSampler

# Saved before user code can monkey-patch them. `sleep` launches a kernel that spins for a number of cycles.
synchronize = torch.cuda.synchronize
Event: Callable[..., torch.cuda.Event] = torch.cuda.Event
sleep: Callable[[int], None] = torch.cuda._sleep

CLEARED = 2  # multiple of the L2 size that is written to clear it; replacement is not strictly least recently used
CYCLES_PER_S = 2e9  # roughly; whether a block was long enough is checked afterwards
MAX_COPIES = 16  # of the inputs


class CudaDevice:
    """Implements `mfbench.measure.devices.base.Device` and `mfbench.measure.devices.stream.Queue`."""

    def __init__(self, index: int = 0) -> None:
        self.index = index
        self.l2_bytes = int(getattr(torch.cuda.get_device_properties(index), "L2_cache_size", 0) or 0)
        self._nvml = None if torch.version.hip else Nvml.of(torch.cuda.get_device_properties(index))
        self._buffer: torch.Tensor | None = None
        self._sampler = StreamSampler(self)

    def synchronize(self) -> None:
        synchronize(self.index)

    def clear_cache(self) -> bool:
        """Overwrite more than L2 holds. On AMD, L2 is not the last level, and the size of that is not reported."""
        if not self.l2_bytes:
            return False
        if self._buffer is None:
            self._buffer = torch.empty(CLEARED * self.l2_bytes, dtype=torch.uint8, device=f"cuda:{self.index}")
        self._buffer.zero_()
        return torch.version.hip is None

    def clocks(self) -> Clocks:
        return self._nvml.clocks() if self._nvml else Clocks()

    def rotation(self, input_bytes: int) -> int:
        """Return enough copies to exceed L2 twice, if clearing is not known to reach the last level; otherwise 1."""
        if not self.l2_bytes or torch.version.hip is None:
            return 1
        return min(MAX_COPIES, max(1, math.ceil(CLEARED * self.l2_bytes / max(1, input_bytes))))

    def sample(self, steps: Sequence[Step], loops: int, hooks: Hooks = NO_HOOKS) -> tuple[Reading, Any]:
        reading, outputs = self._sampler.sample(steps, loops, hooks)
        hooks.after(loops - 1, outputs)
        return reading, outputs

    def mark(self) -> torch.cuda.Event:
        event = Event(enable_timing=True)
        event.record()
        return event

    def between(self, start: torch.cuda.Event, end: torch.cuda.Event) -> float:
        milliseconds: float = start.elapsed_time(end)
        return milliseconds * 1e-3

    def block(self, seconds: float) -> torch.cuda.Event:
        sleep(int(seconds * CYCLES_PER_S))
        return self.mark()

    def passed(self, mark: torch.cuda.Event) -> bool:
        passed: bool = mark.query()
        return passed
