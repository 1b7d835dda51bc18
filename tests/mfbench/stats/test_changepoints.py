"""Change points in simulated histories: found at the right place, with few false alarms."""

from __future__ import annotations

import numpy as np
import pytest

from mfbench.stats.changepoints import find

MARGIN = 0.02


def history(rng: np.random.Generator, levels: list[tuple[int, float]], noise: float = 0.01) -> np.ndarray:
    """Return medians of runs with a given number at each level."""
    truth = np.concatenate([np.full(count, level) for count, level in levels])
    return truth * np.exp(noise * rng.standard_normal(len(truth)))


@pytest.mark.parametrize("count", [6, 20, 250])
def test_histories_without_a_change_raise_few_alarms(count: int) -> None:
    rng = np.random.default_rng(1)
    alarms = sum(bool(find(history(rng, [(count, 1e-3)]), MARGIN)) for _ in range(200))
    assert alarms <= 10


@pytest.mark.parametrize(("before", "after", "ratio"), [(30, 30, 1.1), (100, 5, 1.1), (5, 100, 0.85), (125, 125, 1.04)])
def test_a_change_is_found_at_its_place(before: int, after: int, ratio: float) -> None:
    rng = np.random.default_rng(2)
    right = 0
    for _ in range(50):
        changes = find(history(rng, [(before, 1e-3), (after, ratio * 1e-3)]), MARGIN)
        if len(changes) == 1:
            right += abs(changes[0].at - before) <= 1 and changes[0].ratio == pytest.approx(ratio, rel=0.02)
    assert right >= 45


def test_several_changes_are_separated() -> None:
    rng = np.random.default_rng(3)
    changes = find(history(rng, [(40, 1e-3), (40, 1.2e-3), (40, 0.9e-3)]), MARGIN)
    assert [change.at for change in changes] == pytest.approx([40, 80], abs=1)
    assert [change.ratio for change in changes] == pytest.approx([1.2, 0.75], rel=0.02)


def test_an_outlier_is_no_change() -> None:
    rng = np.random.default_rng(4)
    medians = history(rng, [(60, 1e-3)])
    medians[30] *= 2
    assert find(medians, MARGIN) == []


def test_too_few_runs_show_no_change() -> None:
    assert find(np.array([1e-3, 1e-3, 2e-3, 2e-3, 2e-3]), MARGIN) == []


def test_a_change_within_the_margin_is_not_reported() -> None:
    rng = np.random.default_rng(5)
    assert find(history(rng, [(100, 1e-3), (100, 1.01e-3)], noise=0.0005), MARGIN) == []
