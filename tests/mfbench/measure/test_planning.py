"""Plans: what noise, goal and budget make of the number of rounds."""

from __future__ import annotations

import numpy as np
import pytest

from mfbench.measure import planning
from mfbench.measure.planning import Goal, Pilot, Plan
from mfbench.stats import intervals


def pilot(noise: float, ratio: float = 1.0, placements: int = 16, placement_s: float = 0.1) -> Pilot:
    rng = np.random.default_rng(2)
    base, new = (np.exp(noise * rng.normal(size=3 * placements)) for _ in range(2))
    return Pilot({"base": base, "new": new / ratio}, placements, placement_s)


def planned(goal: Goal, taken: Pilot, left_s: float = 100.0) -> Plan:
    widths = planning.half_widths(goal, taken, "base")
    return planning.plan(goal, taken, "base", widths, intervals.BLOCK_ROUNDS, left_s)


def test_without_a_difference_to_resolve_a_quarter_of_the_budget_is_spent_at_least() -> None:
    assert planned(Goal(100.0), pilot(1e-6)).placements == planning.evenly(250)
    assert planned(Goal(100.0, resolve=0.02), pilot(1e-6)).placements == planning.FEWEST_PLACEMENTS


def test_more_verdicts_in_a_run_take_more_rounds() -> None:
    one, many = (
        planned(Goal(100.0, 0.02, confidence=intervals.family_confidence(family)), pilot(0.05)).placements
        for family in (1, 40)
    )
    assert 2 * one < many < 5 * one


def test_a_budget_too_small_limits_the_plan_and_what_it_would_take_is_said() -> None:
    plan = planned(Goal(3.0, resolve=0.02), pilot(0.1), left_s=3.0)
    assert plan.seconds <= 3.0 < plan.wanted_s
    assert plan.rounds == 3 * plan.placements
    assert str(plan) == f"{plan.rounds} rounds, about 3 s"


def test_a_ratio_clear_of_the_margin_needs_a_wider_interval_only() -> None:
    goal = Goal(100.0, resolve=0.02)
    like, unlike = (planning.half_widths(goal, pilot(0.02, ratio), "base")["new"] for ratio in (1.0, 1.5))
    assert like == pytest.approx(np.log(1.02) / 2)
    assert 0.3 < unlike < np.log(1.5 / 1.02)


def test_the_ratio_does_not_change_what_noise_takes() -> None:
    goal = Goal(100.0, resolve=0.02)
    grown = [planning.growth(goal, pilot(0.02, ratio).samples, "base", {"new": 0.01}) for ratio in (1.0, 1.02, 9.0)]
    assert grown == pytest.approx([grown[0]] * 3)


def test_an_extension_at_most_doubles_the_rounds() -> None:
    goal, widths = Goal(100.0, resolve=0.02), {"new": 0.01}
    assert planning.extension(goal, pilot(0.5), "base", widths, 100.0).placements == 16
    assert planning.extension(goal, pilot(0.5), "base", widths, 0.35).placements == 3
    assert str(planning.extension(goal, pilot(0.5), "base", widths, 0.35)) == "9 more rounds, about 0.3 s"
    assert planning.extension(goal, pilot(0.5), "base", widths, 0.05) is None
    assert planning.extension(goal, pilot(0.001), "base", widths, 100.0) is None


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.01, "0.1 s"), (4.26, "4.3 s"), (41.7, "42 s"), (200.0, "3.3 min"), (7300.0, "2 h")]
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert planning.duration(seconds) == words


@pytest.mark.parametrize("resolve", [1e-9, 1e-200, 0.999])
@pytest.mark.parametrize("left_s", [-5.0, 0.05, 100.0])
def test_any_difference_has_a_plan_within_the_budget_or_the_fewest_rounds(resolve: float, left_s: float) -> None:
    plan = planned(Goal(100.0, resolve), pilot(0.05), left_s)
    assert planning.FEWEST_PLACEMENTS <= plan.placements <= max(planning.FEWEST_PLACEMENTS, left_s / 0.1)
    assert (plan.wanted_s > 1e6) == (resolve < 0.5)
    assert str(plan).startswith(f"{plan.rounds} rounds, about ")
    assert planning.duration(plan.wanted_s).endswith((" s", " min", " h"))


def test_a_provider_alone_has_nothing_to_resolve() -> None:
    alone = Pilot({"base": pilot(0.05).samples["base"]}, 16, 0.1)
    assert planned(Goal(100.0, 0.02), alone).placements == planning.FEWEST_PLACEMENTS
    assert planning.extension(Goal(100.0, 0.02), alone, "base", {}, 100.0) is None
