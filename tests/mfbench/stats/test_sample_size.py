"""Sample sizes: what is planned yields intervals of the width that was asked for."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mfbench.stats import intervals, sample_size, student
from mfbench.stats.intervals import Interval


@pytest.mark.parametrize("confidence", [0.95, 0.999])
@pytest.mark.parametrize("ratio", [0.05, 0.5, 1.0, 3.0, 20.0])
def test_as_many_blocks_as_needed_and_no_more(ratio: float, confidence: float) -> None:
    """The half width is a fraction of the noise; 3 is the fewest."""
    count = sample_size.blocks_needed(1.0, ratio, confidence)

    def half_width(count: int) -> float:
        freedom = min(count, intervals.BLOCKS[1]) - 1
        return float(student.quantile(freedom, 0.5 + confidence / 2)) / math.sqrt(count)

    assert half_width(count) <= ratio
    assert count == intervals.FEWEST or half_width(count - 1) > ratio


@pytest.mark.parametrize("times", [4, 16])
def test_a_narrower_interval_takes_the_square_of_that_in_samples(times: int) -> None:
    rng = np.random.default_rng(5)
    base, new = (np.exp(0.02 * rng.normal(size=90)) for _ in range(2))
    centre = intervals.ratio_location(base, new)
    half_width = math.log(intervals.ratio_interval(base, new).high) - centre.mean
    growth = sample_size.growth(centre, half_width / math.sqrt(times), intervals.CONFIDENCE)
    assert growth == pytest.approx(times, rel=0.15)


def test_too_few_samples_to_know_the_noise_need_any_number() -> None:
    two = intervals.ratio_location(np.array([1.0, 1.1]), np.array([1.0, 1.0]))
    assert sample_size.growth(two, 0.1, 0.95) == math.inf


@pytest.mark.parametrize(
    ("ratio", "margin", "half_width"),
    [(1.0, 0.02, 0.0099), (1.02, 0.02, 0.0099), (2.0, 0.02, 0.6733), (0.5, 0.02, 0.6733), (1.1, 0.0, 0.0953),
     (1.0, 0.0, 0.0)],
)  # fmt: skip
def test_the_half_width_that_decides(ratio: float, margin: float, half_width: float) -> None:
    assert sample_size.decisive_half_width(math.log(ratio), margin) == pytest.approx(half_width, abs=1e-4)


@pytest.mark.parametrize(
    ("low", "high", "clearance"),
    [(0.99, 1.01, 0.0), (1.01, 1.2, 0.0), (1.1, 1.2, math.log(1.1 / 1.02)), (0.5, 0.8, math.log(1.25 / 1.02)),
     (0.0, math.inf, 0.0)],
)  # fmt: skip
def test_an_interval_is_clear_of_the_margin_by_its_nearer_end(low: float, high: float, clearance: float) -> None:
    assert sample_size.clearance(Interval(1.0, low, high), 0.02) == pytest.approx(clearance)


@pytest.mark.parametrize("half_width", [1e-150, 1e-300, 5e-324])
def test_a_width_that_no_number_of_samples_reaches(half_width: float) -> None:
    assert sample_size.blocks_needed(1.0, half_width, 0.95) > 1e299
    rng = np.random.default_rng(5)
    centre = intervals.ratio_location(*(np.exp(0.02 * rng.normal(size=90)) for _ in range(2)))
    assert sample_size.growth(centre, half_width, 0.95) > 1e290
    assert sample_size.growth_to_decide(centre, half_width, 0.95) > 0
