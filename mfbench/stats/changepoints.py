"""Steps in a history: where a time changed and stayed so, by binary segmentation (Scott and Knott, 1974)."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np

from mfbench.stats.intervals import Samples, spread

FEWEST = 6  # runs, below which the noise between runs is not known
SIDE = 2  # runs on each side of a step, so that a single stray run is none
SURE = 2.0  # standard errors beyond what the largest of so many splits of noise alone reaches


class Step(NamedTuple):
    """From run `at` on, one evaluation takes `ratio` times as long."""

    at: int
    ratio: float


def find(medians: Samples, margin: float) -> list[Step]:
    """The steps in a history of medians.

    Noise between runs is taken from the differences of neighbours, which steps hardly touch.

    Args:
        medians: (runs,) seconds, by time.
        margin: relative change below which there is no step.
    """
    logs = np.log(np.asarray(medians, dtype=np.float64))
    if len(logs) < FEWEST:
        return []
    noise = max(spread(np.diff(logs)) / math.sqrt(2), 1e-9)
    threshold = math.sqrt(2 * math.log(len(logs))) + SURE
    edges = [0, *sorted(_split(logs, 0, noise, threshold, margin)), len(logs)]
    levels = [float(np.median(logs[start:end])) for start, end in itertools.pairwise(edges)]
    return [Step(at, math.exp(now - before)) for at, before, now in zip(edges[1:-1], levels, levels[1:], strict=False)]


def _split(logs: Samples, offset: int, noise: float, threshold: float, margin: float) -> list[int]:
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
