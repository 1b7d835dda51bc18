"""Steps in histories whose truth is known: found where they are, and hardly ever where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from mfbench.stats.changepoints import find

MARGIN = 0.02


def history(rng: np.random.Generator, levels: list[tuple[int, float]], noise: float = 0.01) -> np.ndarray:
    """Medians of runs: so many at each level."""
    truth = np.concatenate([np.full(count, level) for count, level in levels])
    return truth * np.exp(noise * rng.standard_normal(len(truth)))


@pytest.mark.parametrize("count", [6, 20, 250])
def test_histories_without_a_step_are_left_alone(count: int) -> None:
    rng = np.random.default_rng(1)
    alarms = sum(bool(find(history(rng, [(count, 1e-3)]), MARGIN)) for _ in range(200))
    assert alarms <= 10


@pytest.mark.parametrize(("before", "after", "ratio"), [(30, 30, 1.1), (100, 5, 1.1), (5, 100, 0.85), (125, 125, 1.04)])
def test_a_step_is_found_where_it_is(before: int, after: int, ratio: float) -> None:
    rng = np.random.default_rng(2)
    right = 0
    for _ in range(50):
        steps = find(history(rng, [(before, 1e-3), (after, ratio * 1e-3)]), MARGIN)
        right += len(steps) == 1 and abs(steps[0].at - before) <= 1 and steps[0].ratio == pytest.approx(ratio, rel=0.02)
    assert right >= 45


def test_several_steps_are_told_apart() -> None:
    rng = np.random.default_rng(3)
    steps = find(history(rng, [(40, 1e-3), (40, 1.2e-3), (40, 0.9e-3)]), MARGIN)
    assert [step.at for step in steps] == pytest.approx([40, 80], abs=1)
    assert [step.ratio for step in steps] == pytest.approx([1.2, 0.75], rel=0.02)


def test_a_stray_run_is_no_step() -> None:
    rng = np.random.default_rng(4)
    medians = history(rng, [(60, 1e-3)])
    medians[30] *= 2
    assert find(medians, MARGIN) == []


def test_too_few_runs_show_no_step() -> None:
    assert find(np.array([1e-3, 1e-3, 2e-3, 2e-3, 2e-3]), MARGIN) == []


def test_a_change_within_the_margin_is_none() -> None:
    rng = np.random.default_rng(5)
    assert find(history(rng, [(100, 1e-3), (100, 1.01e-3)], noise=0.0005), MARGIN) == []
