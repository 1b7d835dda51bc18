"""The CPU as a device: every evaluation that counts is timed, those before are not."""

from __future__ import annotations

import pytest

from mfbench import cpu


@pytest.mark.parametrize(
    ("seconds", "loops", "evaluations"), [(1e-3, 1, 4), (1e-3, 7, 10), (0.05, 2, 3), (0.5, 1, 1), (0.5, 3, 3)]
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
    assert reading.before == pytest.approx((evaluations - loops) * seconds)
    assert (calls, outputs) == (evaluations, evaluations)
    assert (reading.cold, reading.gaps, reading.throttled) == (False, False, False)


def test_a_cpu_does_not_claim_to_clear_its_cache() -> None:
    device = cpu.CpuDevice()
    assert not device.clear_cache()
    assert device.rotation(1 << 10) == 1
