"""Timing on simulated devices of every kind: coverage, throttling, cold caches. `coverage.py` is the longer form."""

from __future__ import annotations

import pytest

from tests.mfbench.measure.devices.simulated import Machine, Nature, SimulatedDevice
from tests.studies.coverage import KINDS, simulate

QUIET = Nature(noise=0.0, spikes=0.0, drift=0.0, placement=0.0)


@pytest.mark.parametrize("name", KINDS)
def test_what_is_said_is_so(name: str) -> None:
    kind = KINDS[name]
    seen = simulate(kind, 60, first_seed=10_000)
    assert seen.covered >= 52  # of 60; 57 are expected, and fewer than 52 come once in 600 times
    assert seen.found >= 0.99 * seen.throttled
    assert seen.accused <= 0.01 * seen.samples
    assert seen.falsely_cold == 0
    assert (seen.labelled_cold == seen.samples) == kind.l2_known
    assert (seen.throttled > 100) == (kind.nature.throttling > 0)
    assert (seen.gaps == seen.samples) == kind.step_waits


def sample(device: SimulatedDevice, loops: int = 8) -> float:
    return device.sample([device.step], loops)[0].seconds / loops


def test_launches_that_lag_behind_are_not_timed() -> None:
    lagging = Machine(1, QUIET._replace(launch_s=1e-3))
    assert sample(SimulatedDevice(lagging, 1e-4)) == pytest.approx(1e-4 + QUIET.cold_s, rel=0.02)
    waiting = SimulatedDevice(lagging, 1e-4, step_waits=True)
    reading, _ = waiting.sample([waiting.step], 8)
    assert reading.gaps
    assert reading.seconds / 8 > 1e-3


def test_more_evaluations_than_a_queue_holds_are_all_cold_and_all_timed() -> None:
    device = SimulatedDevice(Machine(1, QUIET), 1e-4)
    reading, _ = device.sample([device.step], 50)
    assert reading.cold
    assert reading.seconds / 50 == pytest.approx(1e-4 + QUIET.cold_s, rel=0.02)


def test_a_cache_of_unknown_size_is_never_called_cold() -> None:
    device = SimulatedDevice(Machine(1, QUIET), 1e-4, l2_known=False)
    reading, _ = device.sample([device.step], 8)
    assert not reading.cold
    assert reading.seconds / 8 == pytest.approx(1e-4, rel=0.02)
