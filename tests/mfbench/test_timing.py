"""Rounds on simulated providers whose speed is known: pairing, order, calibration, stopping."""

from __future__ import annotations

import itertools
import random

import pytest

from mfbench import stats, timing


class Machine:
    """A clock that only the providers move, with a speed that drifts and jitters."""

    def __init__(self, monkeypatch, seed: int = 1, jitter: float = 0.01) -> None:
        self.now, self.calls, self.random, self.jitter = 0.0, [], random.Random(seed), jitter
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)

    def provider(self, name: str, seconds: float):
        def sample(loops: int) -> float:
            self.calls.append((name, loops))
            drift = 1 + 0.5 * min(1.0, self.now / 5)
            elapsed = loops * seconds * drift * (1 + self.random.expovariate(1 / self.jitter))
            self.now += elapsed
            return elapsed

        return sample


def run(machine: Machine, seconds: dict[str, float], budget: float = 5.0) -> timing.Timing:
    providers = {name: machine.provider(name, value) for name, value in seconds.items()}
    return timing.time_in_rounds(providers, next(iter(seconds)), budget, 1, dict.fromkeys(seconds, 1e-3))


def test_finds_the_ratio_on_a_machine_that_drifts(monkeypatch) -> None:
    result = run(Machine(monkeypatch), {"base": 3e-3, "new": 1e-3})
    ratio = stats.ratio_interval(result.samples["base"], result.samples["new"])
    assert ratio.low <= 3.0 <= ratio.high
    assert ratio.high / ratio.low < 1.02


def test_every_round_has_everyone_once_in_changing_order(monkeypatch) -> None:
    machine = Machine(monkeypatch)
    run(machine, {"a": 3e-3, "b": 3e-3, "c": 3e-3})
    last = [name for name, _ in machine.calls[-45:]]
    rounds = [tuple(last[i : i + 3]) for i in range(0, 45, 3)]
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert len(set(rounds)) > 3


def test_samples_of_a_fast_provider_last_long_enough(monkeypatch) -> None:
    machine = Machine(monkeypatch)
    result = run(machine, {"slow": 5e-3, "fast": 2e-6})
    assert result.loops["slow"] <= 2
    assert result.loops["fast"] * 2e-6 >= 0.8 * timing.SAMPLE_S


def test_noise_asks_for_rounds_and_the_budget_limits_them(monkeypatch) -> None:
    calm = run(Machine(monkeypatch, jitter=0.001), {"a": 0.01, "b": 0.01})
    noisy = run(Machine(monkeypatch, jitter=0.05), {"a": 0.01, "b": 0.01})
    hurried = run(Machine(monkeypatch, jitter=0.05), {"a": 0.01, "b": 0.01}, budget=1.0)
    assert len(calm.samples["a"]) == timing.MIN_ROUNDS
    assert len(noisy.samples["a"]) > 3 * timing.MIN_ROUNDS
    assert timing.MIN_ROUNDS <= len(hurried.samples["a"]) < len(noisy.samples["a"])


def test_a_machine_that_warms_up_is_waited_for(monkeypatch) -> None:
    machine = Machine(monkeypatch)
    calls = itertools.count()

    def cold_start(loops: int) -> float:
        elapsed = loops * 5e-3 * (3 if next(calls) < 9 else 1)
        machine.now += elapsed
        return elapsed

    result = timing.time_in_rounds({"a": cold_start, "b": machine.provider("b", 5e-3)}, "b", 5.0, 1,
                                   {"a": 5e-3, "b": 5e-3})  # fmt: skip
    assert result.pilot_rounds >= 9
    assert result.samples["a"].max() < 6e-3


@pytest.mark.parametrize("seconds", [1.0, 5.0])
def test_a_very_slow_case_stops_before_the_least_number_of_rounds(monkeypatch, seconds: float) -> None:
    result = run(Machine(monkeypatch), {"a": seconds, "b": seconds}, budget=1.0)
    assert len(result.samples["a"]) < timing.MIN_ROUNDS
