"""NVML behind a stand-in for NVIDIA's library: which GPU is asked, and what its answers mean. No GPU runs here."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from mfbench.measure.devices import nvml
from mfbench.measure.devices.base import Clocks


class Library:
    """The part of NVIDIA's library that is used."""

    NVML_CLOCK_SM = 1
    nvmlClocksThrottleReasonHwThermalSlowdown = 0x40
    nvmlClocksThrottleReasonSwPowerCap = 0x4

    class NVMLError(Exception):
        pass

    def __init__(self) -> None:
        self.mhz, self.reasons, self.fails = 1980, 0, False

    def nvmlDeviceGetClockInfo(self, handle: str, kind: int) -> int:
        assert (handle, kind) == ("handle", 1)
        if self.fails:
            raise self.NVMLError
        return self.mhz

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle: str) -> int:
        return self.reasons


@pytest.mark.parametrize(("reasons", "limited"), [(0, False), (0x4, False), (0x40, True), (0x44, True)])
def test_the_power_cap_alone_does_not_limit_a_clock(reasons: int, limited: bool) -> None:
    library = Library()
    library.reasons = reasons
    assert nvml.Nvml(library, "handle").clocks() == Clocks(1980.0, limited)


def test_a_driver_that_does_not_answer_gives_no_clocks() -> None:
    library = Library()
    library.fails = True
    assert nvml.Nvml(library, "handle").clocks() == Clocks()


def test_a_gpu_is_asked_for_by_its_uuid(monkeypatch) -> None:
    asked = []
    library = SimpleNamespace(
        NVMLError=Library.NVMLError, nvmlInit=lambda: None, nvmlDeviceGetHandleByUUID=lambda uuid: asked.append(uuid)
    )
    monkeypatch.setitem(sys.modules, "pynvml", library)
    assert nvml.Nvml.of(SimpleNamespace(uuid="ab-12")) is not None
    assert asked == ["GPU-ab-12"]


def test_without_a_driver_there_are_no_clocks(monkeypatch) -> None:
    def fail() -> None:
        raise Library.NVMLError

    monkeypatch.setitem(
        sys.modules, "pynvml", SimpleNamespace(NVMLError=Library.NVMLError, nvmlInit=fail)
    )  # fmt: skip
    assert nvml.Nvml.of(SimpleNamespace(uuid="ab-12")) is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert nvml.Nvml.of(SimpleNamespace(uuid="ab-12")) is None
