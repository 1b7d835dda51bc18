"""How many samples an interval of a given width takes, from the noise of samples that were taken."""

from __future__ import annotations

import math

from mfbench.stats import student
from mfbench.stats.intervals import BLOCKS, FEWEST, Interval, Location


def blocks_needed(noise: float, half_width: float, confidence: float) -> float:
    """Return the fewest independent blocks whose mean has an interval of at most this half width (Student's t).

    Infinite where their number exceeds the largest double.

    Args:
        noise: standard deviation of a block.
        half_width: above 0, in the unit of `noise`.
        confidence: of the interval.
    """
    quantile = 0.5 + confidence / 2
    for count in range(FEWEST, BLOCKS[1]):
        if student.quantile(count - 1, quantile) * noise <= half_width * math.sqrt(count):
            return count
    # more blocks than these are averaged in groups, which does not change the degrees of freedom
    ratio = student.quantile(BLOCKS[1] - 1, quantile) * noise / half_width
    needed = ratio * ratio
    return max(BLOCKS[1], math.ceil(needed)) if math.isfinite(needed) else math.inf


def growth(location: Location, half_width: float, confidence: float) -> float:
    """Return how many times as many samples the interval of a centre needs for this half width; below 1: fewer.

    Infinite where the noise is unknown, or SciPy is missing.
    """
    if not (math.isfinite(location.error) and student.AVAILABLE):
        return math.inf
    independent = location.freedom + 1
    needed = blocks_needed(location.error * math.sqrt(independent), half_width, confidence) / independent
    suffices = student.quantile(location.freedom, 0.5 + confidence / 2) * location.error <= half_width
    return min(needed, 1.0) if suffices else needed


def growth_to_decide(location: Location, margin: float, confidence: float) -> float:
    """Return how many times as many samples, at least 1, would probably decide a verdict; infinite: none would.

    Args:
        location: of the log ratios.
        margin: of the verdict.
        confidence: of the interval that decides.
    """
    half_width = decisive_half_width(location.mean, margin)
    return max(1.0, growth(location, half_width, confidence)) if half_width > 0 else math.inf


def decisive_half_width(log_ratio: float, margin: float) -> float:
    """Return the half width at which an interval around this log ratio probably decides the verdict.

    Within the margin, half of the margin: a ratio of 1 is then called the same with the confidence of the interval.
    Beyond, the distance to the margin. 0: no number of samples decides.
    """
    edge = math.log1p(margin)
    return max(edge / 2, abs(log_ratio) - edge)


def clearance(ratio: Interval, margin: float) -> float:
    """Return how far the interval of a ratio lies beyond the margin, in logarithms; 0 if it does not."""
    lowest = max(ratio.low, 1 / ratio.high) if ratio.high > 0 else math.inf
    return max(math.log(lowest / (1 + margin)), 0.0) if lowest > 0 else 0.0
