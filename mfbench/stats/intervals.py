"""Intervals and verdicts from samples that were taken in rounds."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit  # Student's t quantile; scipy.stats would take a second to import

CONFIDENCE = 0.95
BLOCK_ROUNDS = 3  # a placement (see `timing`); medians of so many rounds are nearly normal whatever the noise's tails
BLOCKS = (5, 30)  # fewest and most
CORRELATION = (-0.1, 0.9)  # of neighbouring blocks, as far as it is believed
BUSY_MARGIN = 1.0  # a thread that shares its core with another program's runs at half its speed
LARGEST = 700.0  # logarithm of a ratio, about

Verdict = Literal["faster", "slower", "same", "inconclusive"]
Samples = npt.NDArray[np.float64]


class Interval(NamedTuple):
    """An estimate and its confidence interval, at 95 % unless another confidence was asked for."""

    estimate: float
    low: float
    high: float


class Location(NamedTuple):
    """Where values lie: their median, the mean of their block medians, its standard error and degrees of freedom."""

    median: float
    mean: float
    error: float
    freedom: float


def median_interval(samples: Samples) -> Interval:
    """Median of samples in the order in which they were taken, seconds."""
    return _exp(_interval(_location(np.log(samples)), CONFIDENCE))


def ratio_interval(baseline: Samples, samples: Samples, confidence: float = CONFIDENCE) -> Interval:
    """How many times as fast as the baseline: median over the rounds of baseline / samples, taken in the same round."""
    return _exp(_interval(_location(np.log(baseline) - np.log(samples)), confidence))


def unpaired_ratio_interval(baseline: Samples, samples: Samples, confidence: float = CONFIDENCE) -> Interval:
    """How many times as fast as the baseline, from samples that were taken in different runs.

    Each side's uncertainty comes from its own block medians, and the two are joined as in Welch's test (1947). What
    changed on the machine between the runs is in the ratio, and nothing in the samples can tell it from the code.

    The blocks of both sides hold as many samples: the median of a short block of skewed samples lies higher than
    that of a long one, and would make the side with fewer samples look slower.
    """
    shorter = min(len(baseline), len(samples))
    length = shorter / _block_count(shorter)
    old, new = (_location(np.log(side), round(len(side) / length)) for side in (baseline, samples))
    return between(old, new, confidence)


def between(baseline: Location, new: Location, confidence: float = CONFIDENCE) -> Interval:
    """How many times as fast as the baseline, from where the logarithms of both sides' seconds lie."""
    squares = baseline.error**2, new.error**2
    if min(baseline.freedom, new.freedom) <= 0:
        freedom = 0.0
    elif sum(squares) > 0:
        freedom = sum(squares) ** 2 / (squares[0] ** 2 / baseline.freedom + squares[1] ** 2 / new.freedom)
    else:
        freedom = min(baseline.freedom, new.freedom)
    median, mean = baseline.median - new.median, baseline.mean - new.mean
    return _exp(_interval(Location(median, mean, math.sqrt(sum(squares)), freedom), confidence))


def family_confidence(count: int) -> float:
    """Of each of `count` intervals that are to hold all together (Bonferroni)."""
    return 1 - (1 - CONFIDENCE) / max(1, count)


def verdict(ratio: Interval, margin: float, busy: bool = False) -> Verdict:
    """`faster` or `slower` where the whole interval lies beyond the margin, `same` where it lies within.

    Args:
        busy: other programs ran throughout. They may have met one side alone for as long as its process lived, which
            no round shows: only what lies beyond `BUSY_MARGIN` is decided.
    """
    if not math.isfinite(ratio.low) or not math.isfinite(ratio.high):
        return "inconclusive"
    beyond = max(margin, BUSY_MARGIN) if busy else margin
    if ratio.low > 1 + beyond:
        return "faster"
    if ratio.high < 1 / (1 + beyond):
        return "slower"
    if not busy and ratio.low >= 1 / (1 + margin) and ratio.high <= 1 + margin:
        return "same"
    return "inconclusive"


def location(samples: Samples) -> Location:
    """Where the logarithms of samples lie, in the order in which they were taken."""
    return _location(np.log(samples))


def quartile_location(median: float, interquartile_range: float, count: int) -> Location:
    """Where the logarithms of samples lie of which only the median and the quartiles were kept.

    The error of a median of normal noise is 1.25 standard deviations / sqrt(n), and the interquartile range is 1.35
    standard deviations. How the samples were correlated cannot be seen any more: the most that is believed is
    assumed.
    """
    independent = _independent(count, CORRELATION[1])
    error = math.sqrt(math.pi / 2 / independent) * interquartile_range / 1.349 / median
    return Location(math.log(median), math.log(median), error, independent - 1 if count >= BLOCKS[0] else 0.0)


def _location(values: Samples, count: int | None = None) -> Location:
    """From medians of blocks of consecutive values, with an error that is widened for the correlation between them.

    r is the lag-1 correlation of the blocks, with Kendall's correction of its bias, r + (1 + 4 r) / b. Where there are
    more blocks than needed, neighbours are averaged first, so that correlation over a longer time is seen too. An r
    below 0 is mostly chance; all of it believed, intervals are too narrow, and none of it, too wide: chance would
    widen and never narrow them.
    """
    median = float(np.median(values))
    fewest, most = BLOCKS
    if len(values) < fewest:
        return Location(median, median, math.inf, 0.0)
    blocks = _of_blocks(np.median, values, min(count or _block_count(len(values)), len(values)))
    if len(blocks) > most:
        blocks = _of_blocks(np.mean, blocks, most)
    mean = float(blocks.mean())
    deviations = blocks - mean
    squares = float(deviations @ deviations)
    correlation = float(deviations[1:] @ deviations[:-1]) / squares if squares > 0 else 0.0
    correlation += (1 + 4 * correlation) / len(blocks)
    independent = _independent(len(blocks), float(np.clip(correlation, *CORRELATION)))
    error = math.sqrt(squares / (len(blocks) - 1) / independent)
    return Location(median, mean, error, min(independent, len(blocks)) - 1)


def _block_count(count: int) -> int:
    """Blocks of whole placements: the rounds of one have in common where the data lay."""
    fewest, most = BLOCKS
    placements = math.ceil(count / (BLOCK_ROUNDS * most))
    return max(round(count / (BLOCK_ROUNDS * placements)), fewest)


def _of_blocks(statistic: Callable[[Samples], Any], values: Samples, count: int) -> Samples:
    return np.array([statistic(block) for block in np.array_split(values, count)])


def _independent(count: int, correlation: float) -> float:
    """The mean of `count` values with that lag-1 correlation varies as that of so many independent ones."""
    return max(count * (1 - correlation) / (1 + correlation), 2.5)


def _interval(location: Location, confidence: float) -> Interval:
    """Student's t."""
    if location.freedom <= 0:
        return Interval(location.median, -math.inf, math.inf)
    half = float(stdtrit(location.freedom, 0.5 + confidence / 2)) * location.error
    return Interval(
        location.median, min(location.median, location.mean - half), max(location.median, location.mean + half)
    )


def spread(values: Samples) -> float:
    """Standard deviation by the median absolute deviation, which stray values do not move."""
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


def _exp(interval: Interval) -> Interval:
    return Interval(*(math.exp(value) if value < LARGEST else math.inf for value in interval))
