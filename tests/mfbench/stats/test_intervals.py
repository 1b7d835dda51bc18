"""Intervals and verdicts on samples whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal

from mfbench.stats import intervals
from mfbench.stats.intervals import Interval


def test_ratio_is_of_the_same_round() -> None:
    drift = np.linspace(1, 3, 60)  # the machine slows down threefold; the pairs do not care
    ratio = intervals.ratio_interval(2e-3 * drift, 1e-3 * drift)
    assert ratio.estimate == pytest.approx(2)
    assert ratio.high - ratio.low < 1e-9


SHOCKS = {
    "normal": lambda rng, count: rng.normal(size=count),
    "t3": lambda rng, count: rng.standard_t(3, count) / 1.7,
    "skewed": lambda rng, count: rng.exponential(size=count),
}


def noise(rng: np.random.Generator, count: int, correlation: float, tails: str) -> np.ndarray:
    """An AR(1) series of log times."""
    return 0.02 * scipy.signal.lfilter([1], [1, -correlation], SHOCKS[tails](rng, count))


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.8])
@pytest.mark.parametrize("tails", SHOCKS)
@pytest.mark.parametrize("rounds", [30, 120])
def test_intervals_cover_the_truth(correlation: float, tails: str, rounds: int) -> None:
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(500):
        base, new = (noise(rng, rounds, correlation, tails) for _ in range(2))
        ratio = intervals.ratio_interval(3e-3 * np.exp(base), 1e-3 * np.exp(new))
        covered += ratio.low <= 3 <= ratio.high
    least = 0.9 if correlation and rounds == 30 else 0.92  # ten blocks are too few to see it in full
    assert least <= covered / 500 <= 0.985


def bursts(rng: np.random.Generator, rounds: int, correlation: float) -> np.ndarray:
    """Log times as on a machine whose neighbours run now and then: a fifth of the shocks are of another size."""
    shocks = np.where(rng.random(rounds) < 0.2, rng.standard_t(2, rounds) * 3, rng.normal(size=rounds))
    return 0.05 * scipy.signal.lfilter([1], [1, -correlation], shocks)


@pytest.mark.parametrize("placement", [0.0, 0.03])  # standard deviation of what three rounds have in common
@pytest.mark.parametrize("correlation", [0.0, 0.5])
@pytest.mark.parametrize("rounds", [60, 90, 480])
def test_intervals_cover_the_truth_where_noise_comes_in_bursts(
    rounds: int, correlation: float, placement: float
) -> None:
    rng = np.random.default_rng(23)
    covered, narrower = 0, []
    for _ in range(150):
        base, new = (bursts(rng, rounds, correlation) for _ in range(2))
        base += np.repeat(rng.normal(0, placement, rounds // 3), 3)
        ratio = intervals.ratio_interval(3e-3 * np.exp(base), 1e-3 * np.exp(new))
        covered += ratio.low <= 3 <= ratio.high
        of_medians = intervals.location_interval(intervals._location(base - new))
        narrower.append(np.log(ratio.high / ratio.low) / np.log(of_medians.high / of_medians.low))
    assert covered >= 0.9 * 150  # 95 % nominal: below with probability 0.01
    if rounds < intervals.FEWEST_TRIMMED:
        assert np.median(narrower) == pytest.approx(1)
    elif not (placement or correlation):
        assert np.median(narrower) < 0.95


@pytest.mark.parametrize("rounds", [3, 4, 5, 6, 9, 12])
@pytest.mark.parametrize("tails", SHOCKS)
def test_intervals_of_few_rounds_cover_the_truth(rounds: int, tails: str) -> None:
    rng = np.random.default_rng(11)
    covered = 0
    for _ in range(1000):
        base, new = (noise(rng, rounds, 0.0, tails) for _ in range(2))
        ratio = intervals.ratio_interval(3e-3 * np.exp(base), 1e-3 * np.exp(new))
        covered += ratio.low <= 3 <= ratio.high
    assert covered / 1000 >= 0.93  # the standard error is 0.007


def test_three_rounds_decide_on_a_large_effect_and_not_on_a_small_one() -> None:
    base, new = 7.0 * np.array([1.0, 1.02, 0.99]), np.array([0.45, 0.46, 0.452])
    large, small = (intervals.ratio_interval(base, side, confidence=0.995) for side in (new, base * [1.02, 0.99, 1.03]))
    assert intervals.verdict(large, 0.02) == "faster"
    assert intervals.verdict(small, 0.02) == "inconclusive"
    ratios = base / new
    assert large.low < ratios.min()  # of three samples, all lie on the same side of the truth one time in four
    assert ratios.max() < large.high


def test_too_few_samples_say_nothing() -> None:
    ratio = intervals.ratio_interval(np.array([1.0, 1.1]), np.array([2.0, 2.1]))
    assert intervals.verdict(ratio, 0.02) == "inconclusive"


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
    assert intervals.verdict(Interval(1.0, low, high), 0.02) == verdict
