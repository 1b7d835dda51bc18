"""The CPU as a device: every evaluation that counts is timed, those before are not."""

from __future__ import annotations

import pytest

from mfbench.measure.devices import cpu


@pytest.mark.parametrize(
    ("seconds", "loops", "evaluations"), [(1e-3, 1, 3), (1e-3, 7, 9), (0.05, 2, 3), (0.5, 1, 1), (0.5, 3, 3)]
)
def test_a_sample_is_of_the_loops_alone(monkeypatch, seconds: float, loops: int, evaluations: int) -> None:
    now, calls = 0.0, 0

    def step() -> int:
        nonlocal now, calls
        now += seconds
        calls += 1
        return calls

    monkeypatch.setattr(cpu, "clock", lambda: now)
    device = cpu.CpuDevice()
    device.sample([step], 1)  # a device knows from its last sample whether an evaluation is long
    calls = 0
    reading, outputs = device.sample([step], loops)
    assert reading.seconds == pytest.approx(loops * seconds)
    assert reading.warm_up_s == pytest.approx((evaluations - loops) * seconds)
    assert (calls, outputs) == (evaluations, evaluations)
    assert (reading.cold, reading.gaps, reading.throttled) == (False, False, False)


@pytest.mark.parametrize(("faulty", "evaluations"), [(0, 3), (5, 8), (10**6, 30)])
def test_the_evaluations_before_go_on_while_pages_are_new(monkeypatch, faulty: int, evaluations: int) -> None:
    calls = 0

    def step() -> None:
        nonlocal calls
        calls += 1

    monkeypatch.setattr(cpu, "clock", lambda: calls * 1e-3)
    monkeypatch.setattr(cpu, "page_faults", lambda: min(calls, faulty))
    device = cpu.CpuDevice()
    reading, _ = device.sample([step], 2)
    assert reading.warm_up_s == pytest.approx(evaluations * 1e-3, abs=1.1e-3)
    again, _ = device.sample([step], 2)  # what always faults is waited for once
    assert again.warm_up_s == pytest.approx(cpu.WARM_S, abs=1.1e-3)


def test_a_cpu_does_not_claim_to_clear_its_cache() -> None:
    device = cpu.CpuDevice()
    assert not device.clear_cache()
    assert device.rotation(1 << 10) == 1
