"""Confidence intervals of times and ratios, and verdicts, from samples measured in rounds."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from mfbench.stats import student

CONFIDENCE = 0.95
BLOCK_ROUNDS = 3  # rounds per block, one placement of the data in memory; their median is nearly normal
FEWEST = 3  # samples needed for an interval
BLOCKS = (5, 30)  # fewest and most blocks; fewer samples than 5 are blocks of one
TRIMMED = 0.3  # share of the log ratios left out at either end of a trimmed mean
FEWEST_TRIMMED = BLOCK_ROUNDS * BLOCKS[1]  # log ratios from which it is taken: enough blocks, each a whole placement
CORRELATION = (-0.1, 0.9)  # range to which the estimated correlation of neighbouring blocks is clipped
FEWEST_INDEPENDENT = 2.5  # independent values assumed at least; fewer would leave no interval
INDEPENDENT_OF_FEW = 2.2  # independent values that three or four count as
LARGEST_LOG = 700.0  # largest logarithm whose exponential is a finite double, rounded down
NORMAL_QUARTILES = 1.349  # interquartile range of a normal distribution, in standard deviations

Verdict = Literal["faster", "slower", "same", "inconclusive"]
Samples = npt.NDArray[np.float64]


class Interval(NamedTuple):
    """An estimate and its confidence interval, at 95 % unless stated otherwise."""

    estimate: float
    low: float
    high: float


class Location(NamedTuple):
    """The centre of a sample: median, mean that the interval is about, its standard error and degrees of freedom."""

    median: float
    mean: float
    error: float
    freedom: float


def median_interval(samples: Samples) -> Interval:
    """Return the median of samples (seconds, in the order measured) with its interval."""
    return location_interval(_location(np.log(samples)))


def location_interval(location: Location) -> Interval:
    """Return the interval of a centre of logarithms, seconds."""
    return _exp(_interval(location, CONFIDENCE))


def ratio_interval(baseline: Samples, samples: Samples, confidence: float = CONFIDENCE) -> Interval:
    """Return the median over the rounds of baseline / samples, where both were measured in the same rounds."""
    return _exp(_interval(ratio_location(baseline, samples), confidence))


def ratio_location(baseline: Samples, samples: Samples) -> Location:
    """Return the centre of the log ratios baseline / samples, where both were measured in the same rounds."""
    ratios = np.log(baseline) - np.log(samples)
    return _location(ratios) if len(ratios) < FEWEST_TRIMMED else _trimmed_location(ratios)


def unpaired_ratio_interval(baseline: Samples, samples: Samples, confidence: float = CONFIDENCE) -> Interval:
    """Return the ratio baseline / samples of the centres of two samples measured in different runs.

    The standard errors of both sides' block medians are combined as in Welch's test (1947). A change of the machine
    between the runs enters the ratio and cannot be told apart from a change of the code.

    The blocks of both sides have the same length: the median of a short block of skewed samples is biased upwards
    compared with a long one's, which would make the side with fewer samples look slower.
    """
    shorter = min(len(baseline), len(samples))
    length = shorter / _block_count(shorter)
    old, new = (_location(np.log(side), round(len(side) / length)) for side in (baseline, samples))
    return between(old, new, confidence)


def between(baseline: Location, new: Location, confidence: float = CONFIDENCE) -> Interval:
    """Return the ratio baseline / new from the centres of the logarithms of both sides' seconds (Welch)."""
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
    """Return the confidence of each of `count` intervals so that all hold jointly at 95 % (Bonferroni)."""
    return 1 - (1 - CONFIDENCE) / max(1, count)


def verdict(ratio: Interval, margin: float, slowdown: float = 1.0) -> Verdict:
    """Return `faster` or `slower` if the whole interval lies beyond the margin, `same` if it lies within.

    Args:
        ratio: baseline / new.
        margin: relative difference up to which two times count as the same.
        slowdown: factor by which other programs may have slowed down one side alone, which no round shows. Above 1,
            only a ratio beyond it is decided; infinite, none is.
    """
    if not math.isfinite(ratio.low) or not math.isfinite(ratio.high):
        return "inconclusive"
    beyond = (1 + margin) * slowdown
    if ratio.low > beyond:
        return "faster"
    if ratio.high < 1 / beyond:
        return "slower"
    if slowdown <= 1 and ratio.low >= 1 / (1 + margin) and ratio.high <= 1 + margin:
        return "same"
    return "inconclusive"


def location(samples: Samples) -> Location:
    """Return the centre of the logarithms of samples in the order measured."""
    return _location(np.log(samples))


def quartile_location(median: float, interquartile_range: float, count: int) -> Location:
    """Return the centre of the logarithms of samples of which only the median and the quartiles are known.

    The standard error of the median of normal noise is sqrt(pi / 2) standard deviations / sqrt(n). The correlation of
    the samples is unknown, so the largest that `CORRELATION` allows is assumed.

    Args:
        median, interquartile_range: seconds.
        count: samples.
    """
    independent = _effective_count(count, CORRELATION[1])
    error = math.sqrt(math.pi / 2 / independent) * interquartile_range / NORMAL_QUARTILES / median
    return Location(math.log(median), math.log(median), error, independent - 1 if count >= BLOCKS[0] else 0.0)


def _location(values: Samples, count: int | None = None) -> Location:
    """Return the centre of values from medians of consecutive blocks."""
    if len(values) < FEWEST:
        median = float(np.median(values))
        return Location(median, median, math.inf, 0.0)
    return _mean(_of_blocks(np.median, values, min(count or _block_count(len(values)), len(values))), values)


def _trimmed_location(values: Samples) -> Location:
    """Return the centre of many values from their trimmed mean (Tukey and McLaughlin, 1963).

    Noise that comes in bursts shifts the medians of some blocks, and so the mean of the medians. It hardly shifts the
    middle of the whole sample. The error is that of the blocks' means of the winsorized values, which holds what rounds
    of one placement have in common, and correlation.
    """
    cut = int(TRIMMED * len(values))
    ordered = np.sort(values)
    winsorized = np.clip(values, ordered[cut], ordered[-1 - cut])
    centre = _mean(_of_blocks(np.mean, winsorized, _block_count(len(values))), values)
    kept = 1 - 2 * cut / len(values)
    return centre._replace(mean=float(ordered[cut : len(values) - cut].mean()), error=centre.error / kept)


def _mean(blocks: Samples, values: Samples) -> Location:
    """Return the mean of the blocks of some values, its error widened for their correlation.

    The correlation is the blocks' lag-1 correlation r with Kendall's bias correction, r + (1 + 4 r) / b. If there are
    more blocks than needed, neighbours are averaged first so that correlation over longer times counts as well.
    A negative r is mostly chance. Using all of it would make intervals too narrow; using none of it, too wide.
    Three or four values do not show their correlation, so they count as `INDEPENDENT_OF_FEW`.
    """
    if len(blocks) > BLOCKS[1]:
        blocks = _of_blocks(np.mean, blocks, BLOCKS[1])
    mean = float(blocks.mean())
    deviations = blocks - mean
    squares = float(deviations @ deviations)
    correlation = float(deviations[1:] @ deviations[:-1]) / squares if squares > 0 else 0.0
    correlation += (1 + 4 * correlation) / len(blocks)
    independent = _effective_count(len(blocks), float(np.clip(correlation, *CORRELATION)))
    if len(blocks) < BLOCKS[0]:
        independent = INDEPENDENT_OF_FEW
    error = math.sqrt(squares / (len(blocks) - 1) / independent)
    return Location(float(np.median(values)), mean, error, min(independent, len(blocks)) - 1)


def _block_count(count: int) -> int:
    """Return a number of blocks of whole placements: rounds of one placement share the data's addresses."""
    fewest, most = BLOCKS
    placements = math.ceil(count / (BLOCK_ROUNDS * most))
    return max(round(count / (BLOCK_ROUNDS * placements)), min(count, fewest))


def _of_blocks(statistic: Callable[[Samples], Any], values: Samples, count: int) -> Samples:
    return np.array([statistic(block) for block in np.array_split(values, count)])


def _effective_count(count: int, correlation: float) -> float:
    """Return the number of independent values whose mean varies like that of `count` values with this correlation."""
    return max(count * (1 - correlation) / (1 + correlation), FEWEST_INDEPENDENT)


def _interval(location: Location, confidence: float) -> Interval:
    """Return the interval of a centre by Student's t; unbounded without degrees of freedom, or without SciPy."""
    if location.freedom <= 0 or not student.AVAILABLE:
        return Interval(location.median, -math.inf, math.inf)
    half = student.quantile(location.freedom, 0.5 + confidence / 2) * location.error
    return Interval(
        location.median, min(location.median, location.mean - half), max(location.median, location.mean + half)
    )


def spread(values: Samples) -> float:
    """Return the standard deviation, estimated robustly from the median absolute deviation."""
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


def _exp(interval: Interval) -> Interval:
    return Interval(*(math.exp(value) if value < LARGEST_LOG else math.inf for value in interval))
