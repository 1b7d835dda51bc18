"""Rounds on simulated providers whose speed is known: pairing, order, calibration, stopping."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest

from mfbench.measure import planning, rounds
from mfbench.measure.devices.base import Reading
from mfbench.measure.planning import Goal
from mfbench.stats import intervals


class Machine:
    """A clock that only the providers move, with a speed that drifts and jitters."""

    def __init__(self, seed: int = 1, jitter: float = 0.01) -> None:
        self.now, self.calls, self.random, self.jitter = 0.0, [], random.Random(seed), jitter

    def provider(self, name: str, seconds: float):
        def sample(loops: int, core: int | None = None) -> Reading:
            self.calls.append((name, loops))
            drift = 1 + 0.5 * min(1.0, self.now / 5)
            elapsed = loops * seconds * drift * (1 + self.random.expovariate(1 / self.jitter))
            self.now += elapsed
            return Reading(elapsed)

        return sample

    def hooks(self, samplers: dict[str, rounds.Sampler]) -> rounds.TimingHooks:
        return rounds.TimingHooks(samplers, lambda: self.calls.append(("place", 0)), clock=lambda: self.now)


def run(machine: Machine, seconds: dict[str, float], budget: float = 5.0) -> rounds.CaseTiming:
    providers = {name: machine.provider(name, value) for name, value in seconds.items()}
    estimates = {name: max(value, 1e-3) for name, value in seconds.items()}
    return rounds.time_in_rounds(machine.hooks(providers), next(iter(seconds)), Goal(budget), 1, estimates)


def test_finds_the_ratio_on_a_machine_that_drifts() -> None:
    result = run(Machine(), {"base": 3e-3, "new": 1e-3})
    ratio = intervals.ratio_interval(result.providers["base"].samples, result.providers["new"].samples)
    assert ratio.low <= 3.0 <= ratio.high
    assert ratio.high / ratio.low < 1.02


def test_every_round_has_everyone_once_in_changing_order() -> None:
    machine = Machine()
    run(machine, {"a": 3e-3, "b": 3e-3, "c": 3e-3})
    *_, last = [index for index, (name, _) in enumerate(machine.calls) if name == "place"]
    names = [name for name, _ in machine.calls]
    placement = 1 + 3 * (1 + intervals.BLOCK_ROUNDS)  # the data moves, and a round that does not count goes before
    starts = [last - placement * back + 1 + 3 * turn for back in range(5) for turn in range(1 + intervals.BLOCK_ROUNDS)]
    taken = [tuple(names[start : start + 3]) for start in starts]
    assert all(sorted(order) == ["a", "b", "c"] for order in taken)
    assert len(set(taken)) > 3


def test_data_is_placed_anew_before_every_block_of_rounds() -> None:
    machine = Machine()
    result = run(machine, {"a": 3e-3, "b": 3e-3})
    size = 1 + 2 * (1 + intervals.BLOCK_ROUNDS)
    tail = machine.calls[-result.placements * size :]
    blocks = [tail[i : i + size] for i in range(0, len(tail), size)]
    assert all([call[0] == "place" for call in block] == [True] + [False] * (size - 1) for block in blocks)
    assert len(result.providers["a"].samples) == intervals.BLOCK_ROUNDS * result.placements


def test_everyone_in_a_round_begins_where_the_first_one_ran() -> None:
    machine, cores, asked = Machine(), itertools.count(), []

    def provider(loops: int, core: int | None = None) -> Reading:
        asked.append(core)
        machine.now += 5e-3
        return Reading(5e-3, core=next(cores) if core is None else core)

    rounds.time_in_rounds(machine.hooks({"a": provider, "b": provider}), "b", Goal(1.0), 1, {"a": 5e-3, "b": 5e-3})
    pairs = [asked[at : at + 2] for at in range(len(asked) - 40, len(asked), 2)]
    assert all(first is None and second is not None for first, second in pairs)
    assert len({second for _, second in pairs}) == len(pairs)


@pytest.mark.parametrize("placements", [6, 30, 31, 59, 91, 132, 300])
def test_no_block_of_an_interval_ends_within_a_placement(placements: int) -> None:
    count = intervals.BLOCK_ROUNDS * planning.evenly(placements)
    assert count % intervals._block_count(count) == 0
    assert count // intervals._block_count(count) % intervals.BLOCK_ROUNDS == 0


def test_a_round_in_which_the_device_was_held_back_is_timed_again() -> None:
    machine = Machine(jitter=0.001)
    calls = itertools.count()

    def hot(loops: int, core: int | None = None) -> Reading:
        throttled = next(calls) % 5 == 0
        machine.now += 5e-3
        return Reading(8e-3 if throttled else 5e-3, throttled=throttled)

    result = rounds.time_in_rounds(machine.hooks({"a": hot, "b": machine.provider("b", 5e-3)}), "b", Goal(5.0), 1,
                                   {"a": 5e-3, "b": 5e-3})  # fmt: skip
    assert result.providers["a"].samples.max() == 5e-3
    assert result.throttled >= 3
    assert len(result.providers["a"].samples) == intervals.BLOCK_ROUNDS * result.placements


def test_a_device_that_is_always_held_back_is_timed_all_the_same() -> None:
    machine = Machine(jitter=0.001)

    def hot(loops: int, core: int | None = None) -> Reading:
        machine.now += 5e-3
        return Reading(5e-3, throttled=True)

    result = rounds.time_in_rounds(machine.hooks({"a": hot, "b": machine.provider("b", 5e-3)}), "b", Goal(5.0), 1,
                                   {"a": 5e-3, "b": 5e-3})  # fmt: skip
    assert result.placements >= planning.FEWEST_PLACEMENTS
    assert result.throttled == intervals.BLOCK_ROUNDS * result.placements


def test_rounds_that_other_programs_disturbed_are_counted() -> None:
    machine = Machine(jitter=0.001)
    busy = itertools.cycle([0.0, 1.5, 0.0, 0.1])  # read before and after each placement
    hooks = machine.hooks({"a": machine.provider("a", 5e-3), "b": machine.provider("b", 5e-3)})
    result = rounds.time_in_rounds(
        hooks._replace(background_cores=lambda: next(busy)), "b", Goal(5.0), 1, {"a": 5e-3, "b": 5e-3}
    )
    assert result.disturbed == intervals.BLOCK_ROUNDS * result.placements / 2


def disturbed_by(busy: Iterator[float]) -> rounds.CaseTiming:
    machine = Machine(jitter=0.02)
    hooks = machine.hooks({"a": machine.provider("a", 5e-3), "b": machine.provider("b", 5e-3)})
    return rounds.time_in_rounds(
        hooks._replace(background_cores=lambda: next(busy)), "b", Goal(5.0), 1, {"a": 5e-3, "b": 5e-3}
    )


def test_a_few_disturbed_placements_are_taken_again_and_dropped() -> None:
    calm, result = disturbed_by(itertools.repeat(0.0)), disturbed_by(itertools.cycle([0.0, 0.9] + [0.0, 0.1] * 3))
    assert calm.dropped == 0
    assert result.disturbed == 0
    assert result.dropped >= intervals.BLOCK_ROUNDS * calm.placements / 5
    assert result.placements >= 0.9 * calm.placements
    assert (
        result.placements * intervals.BLOCK_ROUNDS
        == len(result.providers["a"].samples)
        == len(result.providers["b"].samples)
    )


def test_samples_of_a_fast_provider_last_long_enough() -> None:
    machine = Machine()
    result = run(machine, {"slow": 5e-3, "fast": 2e-6})
    assert result.providers["slow"].loops <= 2
    assert result.providers["fast"].loops * 2e-6 >= 0.8 * rounds.SAMPLE_S


@pytest.mark.parametrize("seed", range(8))
def test_providers_about_as_fast_as_the_baseline_get_as_many_evaluations_a_sample(seed: int) -> None:
    result = run(Machine(seed, jitter=0.2), {"base": 2e-4, "like": 2e-4, "near": 1.6e-4, "far": 4e-5}, budget=1.0)
    assert result.providers["base"].loops == result.providers["like"].loops == result.providers["near"].loops
    assert result.providers["far"].loops > 2 * result.providers["base"].loops


def test_noise_asks_for_rounds_and_the_budget_limits_them() -> None:
    calm = run(Machine(jitter=0.001), {"a": 0.01, "b": 0.01})
    noisy = run(Machine(jitter=0.05), {"a": 0.01, "b": 0.01})
    hurried = run(Machine(jitter=0.05), {"a": 0.01, "b": 0.01}, budget=1.0)
    assert planning.FEWEST_PLACEMENTS <= calm.placements < noisy.placements / 2
    assert planning.FEWEST_PLACEMENTS <= hurried.placements < noisy.placements


def test_a_machine_that_warms_up_is_waited_for() -> None:
    machine = Machine()
    calls = itertools.count()

    def cold_start(loops: int, core: int | None = None) -> Reading:
        elapsed = loops * 5e-3 * (3 if next(calls) < 9 else 1)
        machine.now += elapsed
        return Reading(elapsed)

    providers = {"a": cold_start, "b": machine.provider("b", 5e-3)}
    result = rounds.time_in_rounds(machine.hooks(providers), "b", Goal(5.0), 1, {"a": 5e-3, "b": 5e-3})
    assert result.pilot_rounds >= 9
    assert result.providers["a"].samples.max() < 6e-3


@pytest.mark.parametrize("seconds", [0.3, 1.0, 20.0])
def test_a_very_slow_case_has_three_rounds_and_an_interval(seconds: float) -> None:
    result = run(Machine(), {"base": 15 * seconds, "new": seconds}, budget=1.0)
    ratio = intervals.ratio_interval(*(result.providers[name].samples for name in ("base", "new")))
    assert result.placements == result.providers["base"].samples.size == intervals.FEWEST
    assert result.pilot_rounds == 0
    assert intervals.verdict(ratio, 0.02) == "faster"


def test_a_budget_for_few_rounds_is_spent_on_them_and_at_most_as_much_again_on_18() -> None:
    machine = Machine()
    result = run(machine, {"a": 0.1, "b": 0.1}, budget=3.0)
    assert result.placements == result.providers["a"].samples.size == planning.ENOUGH_ROUNDS == 18
    assert machine.now <= 6.0
    machine = Machine()
    result = run(machine, {"a": 0.1, "b": 0.1}, budget=1.2)
    assert 6 <= result.placements == result.providers["a"].samples.size <= 11
    assert machine.now <= 2.4


TWO_PERCENT = Goal(60.0, resolve=0.02)


def resolve(
    machine: Machine, seconds: dict[str, float], goal: Goal = TWO_PERCENT
) -> tuple[rounds.CaseTiming, list[planning.Plan]]:
    providers = {name: machine.provider(name, value) for name, value in seconds.items()}
    plans: list[planning.Plan] = []
    hooks = machine.hooks(providers)
    return rounds.time_in_rounds(hooks, next(iter(seconds)), goal, 1, seconds, plans.append), plans


def width(result: rounds.CaseTiming, name: str = "b") -> float:
    ratio = intervals.ratio_interval(result.providers["a"].samples, result.providers[name].samples)
    return ratio.high - ratio.low


@pytest.mark.parametrize("jitter", [0.003, 0.03, 0.1])
def test_rounds_are_taken_until_the_interval_is_as_narrow_as_asked(jitter: float) -> None:
    result, plans = resolve(Machine(jitter=jitter), {"a": 6e-3, "b": 6e-3})
    assert width(result) <= 0.021
    assert result.resolve == TWO_PERCENT.resolve
    assert result.planned_s == plans[0].seconds
    assert 0.7 <= result.took_s / sum(plan.seconds for plan in plans) <= 1.5


def test_a_smaller_difference_takes_more_rounds() -> None:
    coarse, fine = (
        resolve(Machine(jitter=0.05), {"a": 6e-3, "b": 6e-3}, Goal(60.0, difference))[0] for difference in (0.08, 0.02)
    )
    assert 1.5 * coarse.placements <= fine.placements


def test_a_large_effect_needs_no_narrow_interval() -> None:
    like, unlike = (resolve(Machine(jitter=0.05), {"a": 9e-3, "b": seconds})[0] for seconds in (9e-3, 6e-3))
    assert unlike.placements < like.placements / 3
    assert unlike.placements < 2 * planning.FEWEST_PLACEMENTS


def test_a_difference_that_the_budget_cannot_resolve_stops_there_and_says_so() -> None:
    machine = Machine(jitter=0.5)
    result, plans = resolve(machine, {"a": 6e-3, "b": 6e-3}, Goal(3.0, resolve=0.01))
    assert machine.now <= 3.0
    assert plans[0].wanted_s > 3 * plans[0].seconds
    assert width(result) > 0.01


def test_rounds_noisier_than_the_pilot_are_added_to() -> None:
    machine = Machine(jitter=0.002)

    def announce(plan: planning.Plan) -> None:
        plans.append(plan)
        machine.jitter = 0.05

    plans: list[planning.Plan] = []
    hooks = machine.hooks({name: machine.provider(name, 6e-3) for name in ("a", "b")})
    result = rounds.time_in_rounds(hooks, "a", Goal(60.0, 0.02), 1, {"a": 6e-3, "b": 6e-3}, announce)

    assert len(plans) > 1
    assert result.placements > plans[0].placements


def test_a_slow_case_is_resolved_with_a_pilot_of_three_rounds() -> None:
    result, plans = resolve(Machine(jitter=0.002), {"a": 3.0, "b": 0.2}, Goal(60.0, 0.02))
    assert result.pilot_rounds == 1 + intervals.FEWEST
    assert plans[0].rounds == result.placements == intervals.FEWEST


def test_a_budget_shorter_than_a_round_takes_the_fewest_rounds() -> None:
    result, plans = resolve(Machine(jitter=0.002), {"a": 0.5, "b": 0.5}, Goal(0.01, 0.02))
    assert len(result.providers["a"].samples) == intervals.FEWEST
    assert [plan.further for plan in plans] == [False]
    assert plans[0].seconds > 0.01


@pytest.mark.parametrize("difference", [1e-200, 0.999])
def test_differences_at_the_ends_of_the_range(difference: float) -> None:
    machine = Machine(jitter=0.02)
    result, plans = resolve(machine, {"a": 6e-3, "b": 6e-3}, Goal(3.0, difference))
    assert machine.now <= 3.0
    assert (result.placements == planning.FEWEST_PLACEMENTS) == (difference > 0.5)
    assert (plans[0].wanted_s > 3.0) == (difference < 0.5)


def test_a_provider_alone_is_timed_with_a_difference_to_resolve() -> None:
    result, plans = resolve(Machine(jitter=0.02), {"a": 6e-3})
    assert result.placements == plans[0].placements == planning.FEWEST_PLACEMENTS
    assert len(plans) == 1
