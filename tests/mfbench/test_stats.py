"""Intervals and verdicts on samples whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from mfbench import stats
from mfbench.stats import Interval


def test_ratio_is_of_the_same_round() -> None:
    drift = np.linspace(1, 3, 60)  # the machine slows down threefold; the pairs do not care
    ratio = stats.ratio_interval(2e-3 * drift, 1e-3 * drift)
    assert ratio.estimate == pytest.approx(2)
    assert ratio.high - ratio.low < 1e-9


def test_intervals_cover_the_truth() -> None:
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(400):
        noise = rng.standard_gamma(2, (2, 60)) * 0.02
        ratio = stats.ratio_interval(3e-3 * (1 + noise[0]), 1e-3 * (1 + noise[1]))
        covered += ratio.low <= 3 <= ratio.high
    assert 0.91 <= covered / 400 <= 0.985


def test_too_few_samples_say_nothing() -> None:
    ratio = stats.ratio_interval(np.array([1.0, 1.1]), np.array([2.0, 2.1]))
    assert stats.verdict(ratio, 0.02) == "inconclusive"


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (1.03, 1.5, "faster"),
        (0.5, 0.97, "slower"),
        (0.99, 1.01, "same"),
        (0.99, 1.05, "inconclusive"),
        (0.97, 1.01, "inconclusive"),
        (1.01, 1.05, "inconclusive"),
        (0.0, float("inf"), "inconclusive"),
    ],
)
def test_verdicts(low: float, high: float, verdict: str) -> None:
    assert stats.verdict(Interval(1.0, low, high), 0.02) == verdict
