"""Clocks and throttle reasons of an NVIDIA GPU, where its management library and `nvidia-ml-py` are installed."""

from __future__ import annotations

from typing import Any

from mfbench.measure.devices.base import Clocks

REASONS = (
    "nvmlClocksThrottleReasonSwThermalSlowdown",
    "nvmlClocksThrottleReasonHwSlowdown",
    "nvmlClocksThrottleReasonHwThermalSlowdown",
    "nvmlClocksThrottleReasonHwPowerBrakeSlowdown",
)  # the power cap is not among them: large GPUs run at it all the time, and a lower clock shows where it matters


class Nvml:
    """One GPU's handle."""

    def __init__(self, library: Any, handle: Any) -> None:
        self._library, self._handle = library, handle
        self._reasons = 0
        for name in REASONS:
            self._reasons |= getattr(library, name, 0)

    @classmethod
    def of(cls, properties: Any) -> Nvml | None:
        """The GPU with the UUID of those device properties; None where it cannot be asked.

        PyTorch's numbering follows CUDA_VISIBLE_DEVICES and the library's does not, so the number will not do.
        """
        try:
            import pynvml
        except ImportError:
            return None
        try:
            pynvml.nvmlInit()
            return cls(pynvml, pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{properties.uuid}"))
        except (pynvml.NVMLError, AttributeError):
            return None

    def clocks(self) -> Clocks:
        """The SM clock, and whether heat or the power supply hold it back; nothing where the driver does not tell."""
        library = self._library
        try:
            mhz = float(library.nvmlDeviceGetClockInfo(self._handle, library.NVML_CLOCK_SM))
            reasons = library.nvmlDeviceGetCurrentClocksThrottleReasons(self._handle)
        except library.NVMLError:
            return Clocks()
        return Clocks(mhz, bool(reasons & self._reasons))
