"""Read clocks and throttle reasons of an NVIDIA GPU through NVML, if `nvidia-ml-py` is installed."""

from __future__ import annotations

from typing import Any

from mfbench.measure.devices.base import Clocks

REASONS = (
    "nvmlClocksThrottleReasonSwThermalSlowdown",
    "nvmlClocksThrottleReasonHwSlowdown",
    "nvmlClocksThrottleReasonHwThermalSlowdown",
    "nvmlClocksThrottleReasonHwPowerBrakeSlowdown",
)  # without the power cap, which large GPUs always run at; a lower clock shows if it matters


class Nvml:
    """NVML handle of one GPU."""

    def __init__(self, library: Any, handle: Any) -> None:
        self._library, self._handle = library, handle
        self._reasons = 0
        for name in REASONS:
            self._reasons |= getattr(library, name, 0)

    @classmethod
    def of(cls, properties: Any) -> Nvml | None:
        """Return the handle of the GPU with the UUID of these device properties; None if NVML is not available.

        The device's number would not do: PyTorch's numbering follows CUDA_VISIBLE_DEVICES, and NVML's does not.
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
        """Return the SM clock, and whether heat or the power supply limits it, as far as the driver reports them."""
        library = self._library
        try:
            mhz = float(library.nvmlDeviceGetClockInfo(self._handle, library.NVML_CLOCK_SM))
            reasons = library.nvmlDeviceGetCurrentClocksThrottleReasons(self._handle)
        except library.NVMLError:
            return Clocks()
        return Clocks(mhz, bool(reasons & self._reasons))
