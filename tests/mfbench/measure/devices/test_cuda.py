"""The CUDA device against stand-ins for `torch.cuda` and NVIDIA's library: what is asked of them, in which order.

No GPU runs here, and nothing is timed.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from mfbench.measure.devices import cuda, nvml
from mfbench.measure.devices.base import Clocks
from tests.mfbench.measure.devices.test_nvml import Library

L2_BYTES = 50 << 20


class Driver:
    """Notes what is enqueued; every kernel takes a millisecond, the host no time."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.now_ms = 0.0
        self.host_is_late = 0  # how many blocks end before all is enqueued

    def event(self, enable_timing: bool) -> SimpleNamespace:
        assert enable_timing
        mark = SimpleNamespace()

        def record() -> None:
            self.log.append("mark")
            mark.at = self.now_ms

        def query() -> bool:
            self.host_is_late -= 1
            return self.host_is_late >= 0

        mark.record, mark.query = record, query
        mark.elapsed_time = lambda end: end.at - mark.at
        return mark

    def kernel(self, name: str) -> None:
        self.log.append(name)
        self.now_ms += 1.0


@pytest.fixture
def driver(monkeypatch) -> Driver:
    driver = Driver()
    properties = SimpleNamespace(L2_cache_size=L2_BYTES, uuid="1234")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    monkeypatch.setattr(cuda, "Event", driver.event)
    monkeypatch.setattr(cuda, "synchronize", lambda index: driver.log.append("synchronize"))
    monkeypatch.setattr(cuda, "sleep", lambda cycles: driver.log.append("block"))
    monkeypatch.setattr(cuda.Nvml, "of", lambda properties: None)

    def empty(size: int, dtype: torch.dtype, device: str) -> SimpleNamespace:
        driver.log.append(f"allocate {size}")
        return SimpleNamespace(zero_=lambda: driver.kernel("clear"))

    monkeypatch.setattr(cuda.torch, "empty", empty)
    return driver


def test_a_sample_is_between_events_behind_a_block_on_a_cleared_cache(driver: Driver) -> None:
    device = cuda.CudaDevice()
    reading, outputs = device.sample([lambda: driver.kernel("step") or "outputs"], 2)
    assert driver.log == [
        "step", "synchronize", "block", "mark", f"allocate {2 * L2_BYTES}",
        "clear", "mark", "step", "mark", "clear", "mark", "step", "mark", "synchronize",
    ]  # fmt: skip
    assert reading.seconds == pytest.approx(2e-3)
    assert (reading.cold, reading.gaps, reading.throttled) == (True, False, False)
    assert outputs == "outputs"


def test_a_block_that_ended_too_soon_is_made_longer_and_the_sample_taken_again(driver: Driver) -> None:
    device = cuda.CudaDevice()
    driver.host_is_late = 3
    reading, _ = device.sample([lambda: driver.kernel("step")], 1)
    assert driver.log.count("block") == 4
    assert not reading.gaps
    assert reading.seconds == pytest.approx(1e-3)


def test_where_no_block_holds_the_gaps_are_told(driver: Driver) -> None:
    device = cuda.CudaDevice()
    driver.host_is_late = 10**6
    assert device.sample([lambda: driver.kernel("step")], 1)[0].gaps
    blocks = driver.log.count("block")
    assert device.sample([lambda: driver.kernel("step")], 1)[0].gaps
    assert driver.log.count("block") == blocks  # it is not tried again


@pytest.mark.parametrize(("l2_bytes", "hip"), [(0, None), (L2_BYTES, "6.4")])
def test_no_sample_is_cold_where_the_last_level_is_not_known(driver: Driver, monkeypatch, l2_bytes: int, hip) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(L2_cache_size=l2_bytes))
    monkeypatch.setattr(torch.version, "hip", hip)
    device = cuda.CudaDevice()
    assert not device.sample([lambda: driver.kernel("step")], 3)[0].cold
    assert device.rotation(L2_BYTES // 4) == (8 if hip else 1)
    assert device.rotation(100 * L2_BYTES) == 1


def test_steps_on_copies_of_the_inputs_take_turns(driver: Driver) -> None:
    steps = [lambda name=name: driver.kernel(name) for name in "abc"]
    cuda.CudaDevice().sample(steps, 5)
    assert [name for name in driver.log if name in "abc"] == ["c", "a", "b", "c", "a", "b"]


def test_clocks_come_with_the_reasons_that_matter(driver: Driver, monkeypatch) -> None:
    library = Library()
    monkeypatch.setattr(cuda.Nvml, "of", lambda properties: nvml.Nvml(library, "handle"))
    device = cuda.CudaDevice()

    def throttled() -> bool:
        return device.sample([lambda: driver.kernel("step")], 1)[0].throttled

    assert device.clocks() == Clocks(1980.0, False)
    assert not throttled()
    library.reasons = 0x4  # the power cap alone
    assert not throttled()
    library.reasons = 0x44
    assert throttled()
    library.reasons, library.mhz = 0, 1500
    assert throttled()
    library.fails = True
    assert device.clocks() == Clocks()
    assert not throttled()
