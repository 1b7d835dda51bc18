"""Intervals and verdicts from samples that were taken in rounds."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit  # Student's t quantile; scipy.stats would take a second to import

CONFIDENCE = 0.95
BLOCK_ROUNDS = 3  # medians of so many neighbouring rounds are nearly normal whatever the noise's tails
BLOCKS = (5, 30)  # fewest and most
MAX_CORRELATION = 0.9

Verdict = Literal["faster", "slower", "same", "inconclusive"]
Samples = npt.NDArray[np.float64]


class Interval(NamedTuple):
    """An estimate and its 95 % confidence interval."""

    estimate: float
    low: float
    high: float


def median_interval(samples: Samples) -> Interval:
    """Median of samples in the order in which they were taken, seconds."""
    return _exp(_block_interval(np.log(samples)))


def ratio_interval(baseline: Samples, samples: Samples) -> Interval:
    """How many times as fast as the baseline: median over the rounds of baseline / samples, taken in the same round."""
    return _exp(_block_interval(np.log(baseline) - np.log(samples)))


def verdict(ratio: Interval, margin: float) -> Verdict:
    """`faster` or `slower` where the whole interval lies beyond the margin, `same` where it lies within."""
    if not math.isfinite(ratio.low) or not math.isfinite(ratio.high):
        return "inconclusive"
    if ratio.low > 1 + margin:
        return "faster"
    if ratio.high < 1 / (1 + margin):
        return "slower"
    if ratio.low >= 1 / (1 + margin) and ratio.high <= 1 + margin:
        return "same"
    return "inconclusive"


def _block_interval(values: Samples) -> Interval:
    """Student's t over medians of blocks of consecutive values, widened for the correlation between blocks.

    With lag-1 correlation r the mean of b blocks varies as that of b (1 - r) / (1 + r) independent ones; r is
    estimated with Kendall's correction of its bias, r + (1 + 4 r) / b.
    """
    median = float(np.median(values))
    fewest, most = BLOCKS
    if len(values) < fewest:
        return Interval(median, -math.inf, math.inf)
    count = min(max(len(values) // BLOCK_ROUNDS, fewest), most)
    blocks = np.array([np.median(block) for block in np.array_split(values, count)])
    centre = float(blocks.mean())
    deviations = blocks - centre
    squares = float(deviations @ deviations)
    correlation = float(deviations[1:] @ deviations[:-1]) / squares if squares > 0 else 0.0
    correlation = min(max(correlation + (1 + 4 * correlation) / count, 0.0), MAX_CORRELATION)
    independent = max(count * (1 - correlation) / (1 + correlation), 2.5)
    error = math.sqrt(squares / (count - 1) / independent)
    half = float(stdtrit(independent - 1, 0.5 + CONFIDENCE / 2)) * error
    return Interval(median, min(median, centre - half), max(median, centre + half))


def spread(values: Samples) -> float:
    """Standard deviation by the median absolute deviation, which stray values do not move."""
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


def _exp(interval: Interval) -> Interval:
    return Interval(*(math.exp(value) for value in interval))
