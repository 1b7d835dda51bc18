"""Intervals and verdicts from samples that were taken in rounds."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit  # Student's t quantile; scipy.stats would take a second to import

CONFIDENCE = 0.95
BLOCKS = 10  # neighbouring rounds share their noise; medians of blocks of rounds are nearly independent

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
    """Student's t over medians of blocks of consecutive values, about the median of all."""
    median = float(np.median(values))
    if len(values) < 4:
        return Interval(median, -math.inf, math.inf)
    blocks = [np.median(block) for block in np.array_split(values, min(BLOCKS, len(values) // 2))]
    error = np.std(blocks, ddof=1) / math.sqrt(len(blocks))
    half = float(error * stdtrit(len(blocks) - 1, 0.5 + CONFIDENCE / 2))
    centre = float(np.mean(blocks))
    return Interval(median, min(median, centre - half), max(median, centre + half))


def _exp(interval: Interval) -> Interval:
    return Interval(*(math.exp(value) for value in interval))
