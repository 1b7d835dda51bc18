"""Change points: where a series of times moved to another level and stayed there.

Binary segmentation (Scott and Knott, 1974) with a threshold for the largest of many scores of pure noise.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np

from mfbench.stats.intervals import Samples, spread

FEWEST = 6  # runs needed to estimate the noise between runs
SIDE = 2  # runs required on each side of a change, so that one outlier is not a change
SURE = 2.0  # standard errors above the expected maximum of the scores of noise


class ChangePoint(NamedTuple):
    """A lasting change: from run `at` on, an evaluation takes `ratio` times as long as before."""

    at: int
    ratio: float


def find(medians: Samples, margin: float) -> list[ChangePoint]:
    """Find the change points in the medians of successive runs.

    The noise between runs is estimated from differences of neighbours, which a change of level hardly affects.

    Args:
        medians: (runs,) seconds, ordered by time.
        margin: smallest relative change to report.
    """
    logs = np.log(np.asarray(medians, dtype=np.float64))
    if len(logs) < FEWEST:
        return []
    noise = max(spread(np.diff(logs)) / math.sqrt(2), 1e-9)
    threshold = math.sqrt(2 * math.log(len(logs))) + SURE
    edges = [0, *sorted(_split(logs, 0, noise, threshold, margin)), len(logs)]
    levels = [float(np.median(logs[start:end])) for start, end in itertools.pairwise(edges)]
    return [
        ChangePoint(at, math.exp(after - before))
        for at, before, after in zip(edges[1:-1], levels, levels[1:], strict=False)
    ]


def _split(logs: Samples, offset: int, noise: float, threshold: float, margin: float) -> list[int]:
    """Return the change points of a segment that begins at run `offset`, found recursively."""
    count = len(logs)
    if count < 2 * SIDE:
        return []
    places = np.arange(SIDE, count - SIDE + 1)
    sums = np.cumsum(logs)
    before, after = sums[places - 1] / places, (sums[-1] - sums[places - 1]) / (count - places)
    scores = np.abs(before - after) / (noise * np.sqrt(1 / places + 1 / (count - places)))
    at = int(places[scores.argmax()])
    jump = abs(float(np.median(logs[at:]) - np.median(logs[:at])))
    if scores.max() < threshold or jump < math.log1p(margin):
        return []
    return [
        *_split(logs[:at], offset, noise, threshold, margin),
        offset + at,
        *_split(logs[at:], offset + at, noise, threshold, margin),
    ]
