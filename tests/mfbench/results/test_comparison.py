"""Comparisons of simulated runs with known ratios: coverage, false alarms, power, changes of status."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import scipy.signal

from mfbench.results.comparison import Measurement, Quartiles, compare
from mfbench.stats import intervals

ENV = {"cpu": "a cpu", "cpus": 2, "system": "Linux 6", "threads": 2, "commit": "1234", "load": 0.3,
       "versions": {"python": "3.11", "torch": "2.13", "triton": "3.9", "mfbench": "0.1"}}  # fmt: skip
SHOCKS = {
    "normal": lambda rng, count: rng.normal(size=count),
    "t3": lambda rng, count: rng.standard_t(3, count) / 1.7,
    "skewed": lambda rng, count: rng.exponential(size=count),
}


def seconds(
    rng: np.random.Generator, rounds: int, median: float = 1e-3, noise: float = 0.01, correlation: float = 0.0,
    tails: str = "normal", drift: float = 0.0,
) -> np.ndarray:  # fmt: skip
    """Return the samples of a run: an AR(1) series of log times that drifts by `drift` during the run."""
    shocks = SHOCKS[tails](rng, rounds + 50)
    series = scipy.signal.lfilter([1], [1, -correlation], shocks * np.sqrt(1 - correlation**2))[50:]
    return median * np.exp(noise * series + drift * np.sin(np.linspace(0, 2 * np.pi, rounds, endpoint=False)))


def one(samples: np.ndarray | Quartiles | None, number: int = 0, **changes: Any) -> Measurement:
    fields = {"case": f"case {number}", "provider": "fused", "device": "cpu", "status": "ok", "reason": None,
              "env": ENV}  # fmt: skip
    return Measurement(**(fields | changes), samples=samples)


def outcomes(base: list[np.ndarray], new: list[np.ndarray], margin: float = 0.02) -> list[str]:
    sides = ([one(samples, number) for number, samples in enumerate(side)] for side in (base, new))
    return [pair.outcome for pair in compare(*sides, margin=margin).pairs]


@pytest.mark.parametrize("tails", SHOCKS)
@pytest.mark.parametrize("correlation", [0.0, 0.6])
@pytest.mark.parametrize("rounds", [(30, 30), (120, 120), (30, 400)])
def test_intervals_of_two_runs_cover_the_truth(rounds: tuple[int, int], correlation: float, tails: str) -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(300):
        base = seconds(rng, rounds[0], 3e-3, 0.02, correlation, tails)
        new = seconds(rng, rounds[1], 1e-3, 0.02, correlation, tails)
        ratio = intervals.unpaired_ratio_interval(base, new)
        covered += ratio.low <= 3 <= ratio.high
    least = 0.9 if correlation and rounds[0] != rounds[1] else 0.92  # the shorter side has ten blocks
    assert covered >= least * 300


@pytest.mark.parametrize(
    ("tails", "drift"),
    [
        ("normal", 0.0),
        pytest.param("t3", 0.0, marks=pytest.mark.slow),
        pytest.param("skewed", 0.0, marks=pytest.mark.slow),
        ("skewed", 0.02),
    ],
)
def test_identical_code_is_not_accused(tails: str, drift: float) -> None:
    """Compare 200 suites of 8 cases with 2 % noise, runs of unequal length and the same drift within each run."""
    rng = np.random.default_rng(11)
    accused = {0.0: 0, 0.02: 0}  # by margin; without one only the joint confidence protects
    for _ in range(200):
        runs = [
            [seconds(rng, rounds, noise=0.02, correlation=0.5, tails=tails, drift=drift) for _ in range(8)]
            for rounds in (20, 80)
        ]
        for margin in accused:
            accused[margin] += bool({"faster", "slower"}.intersection(outcomes(*runs, margin)))
    assert accused[0.0] <= 0.14 * 200  # 5 % for many rounds; 10 % for 6 blocks of skewed, correlated noise
    assert accused[0.02] <= 0.01 * 200


def test_a_slowdown_is_found_and_more_samples_find_it_more_often() -> None:
    rng = np.random.default_rng(5)

    def found(slowdown: float, rounds: int) -> float:
        pairs = ((seconds(rng, rounds), seconds(rng, rounds, 1e-3 * (1 + slowdown))) for _ in range(100))
        return sum(outcomes([base], [new]) == ["slower"] for base, new in pairs) / 100

    power = [found(0.03, rounds) for rounds in (15, 45, 90, 400, 4000)]
    assert all(more >= fewer - 0.05 for fewer, more in itertools.pairwise(power))
    assert power[-1] == 1
    assert found(0.05, 90) == 1
    assert found(-0.05, 90) == 0


def test_the_size_of_the_family_widens_the_intervals() -> None:
    rng = np.random.default_rng(2)
    base, new = seconds(rng, 60), seconds(rng, 60)
    widths = []
    for count in (1, 10, 100):
        sides = ([one(side + 1e-12 * number, number) for number in range(count)] for side in (base, new))
        ratio = compare(*sides, margin=0.02).pairs[0].ratio
        widths.append(ratio.high - ratio.low)
    assert widths[0] < widths[1] < widths[2]


def test_a_summary_alone_says_less_than_the_samples() -> None:
    rng = np.random.default_rng(4)
    sides = []
    for median in (1e-3, 1.04e-3):
        samples = seconds(rng, 300, median)
        low, high = np.quantile(samples, [0.25, 0.75])
        sides.append((samples, Quartiles(float(np.median(samples)), float(high - low), 300)))
    (base, base_summary), (new, new_summary) = sides
    whole, summary = (compare([one(a)], [one(b)], 0.02).pairs[0] for a, b in ((base, new), (base_summary, new_summary)))
    assert whole.outcome == "slower"
    assert summary.ratio.estimate == pytest.approx(whole.ratio.estimate)
    assert summary.ratio.high - summary.ratio.low > 2 * (whole.ratio.high - whole.ratio.low)
    mixed = compare([one(base)], [one(new_summary)], 0.02).pairs[0]
    assert mixed.ratio.estimate == pytest.approx(whole.ratio.estimate)


@pytest.mark.parametrize("counts", [(1, 400), (2, 3), (3, 3), (3, 400), (4, 5), (5, 400)])
def test_few_samples_on_one_side(counts: tuple[int, int]) -> None:
    rng = np.random.default_rng(6)
    ratio = intervals.unpaired_ratio_interval(*(seconds(rng, count) for count in counts), confidence=0.9999)
    assert ratio.low < 1 < ratio.high
    assert np.isfinite(ratio.high) == (min(counts) >= intervals.FEWEST)


@pytest.mark.parametrize(
    ("base", "new", "outcome", "code"),
    [
        ("ok", "ok", "same", 0),
        ("ok", "wrong", "broken", 1),
        ("ok", "crashed", "broken", 1),
        ("ok", "timeout", "broken", 1),
        ("ok", "oom", "broken", 1),
        ("crashed", "ok", "fixed", 0),
        ("wrong", "wrong", "failing", 4),
        ("ok", "skipped", None, 4),
        ("skipped", "ok", None, 4),
    ],
)
def test_a_change_of_status(base: str, new: str, outcome: str | None, code: int) -> None:
    samples = np.full(20, 1e-3)
    sides = ([one(samples if status == "ok" else None, status=status)] for status in (base, new))
    comparison = compare(*sides, margin=0.02)
    assert [pair.outcome for pair in comparison.pairs] == ([outcome] if outcome else [])
    assert comparison.exit_code == code
    assert len(comparison.missing) == (new == "skipped")
    assert len(comparison.added) == (base == "skipped")


def test_paired_samples_lose_the_drift_they_share() -> None:
    rng = np.random.default_rng(8)
    drift = np.exp(np.cumsum(rng.normal(0, 0.1, 60)))
    base, new = (drift * seconds(rng, 60, median) for median in (1e-3, 1.05e-3))
    assert compare([one(base)], [one(new)], 0.02, paired=True).pairs[0].outcome == "slower"
    assert compare([one(base)], [one(new)], 0.02).pairs[0].outcome == "inconclusive"
