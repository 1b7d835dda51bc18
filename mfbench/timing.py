"""Rounds: every provider of a case is timed once in each, in random order, until the answer is clear or time is up."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from mfbench import stats

SAMPLE_S = 2e-3  # a sample is at least so long, so that the clock and the pipe do not count
MIN_ROUNDS, MAX_ROUNDS = 15, 400
LOOK_EVERY = 10  # rounds between two looks at the intervals: every look is a chance to stop at a lucky one
TARGET = 0.005  # half width of the ratios' intervals at which a case is settled

Sample = Callable[[int], float]  # loops -> seconds for all of them


class Timing(NamedTuple):
    """Seconds per evaluation of every provider, round by round."""

    samples: dict[str, stats.Samples]
    loops: dict[str, int]
    settled: bool  # the intervals reached their target within the budget


def time_in_rounds(
    sample: Mapping[str, Sample], baseline: str, budget_s: float, seed: int, estimate_s: Mapping[str, float]
) -> Timing:
    """Time the providers against each other.

    Args:
        sample: for each provider, a function that runs so many loops and returns the seconds they took.
        baseline: the provider that the others' ratios are against.
        budget_s: seconds for all rounds; the minimum of rounds is kept also beyond it, unless it is overrun tenfold.
        seed: of the order inside the rounds.
        estimate_s: seconds an evaluation of each provider takes, roughly.
    """
    order = random.Random(seed)
    names = list(sample)
    loops = {name: _calibrate(sample[name], estimate_s[name]) for name in names}
    taken: dict[str, list[float]] = {name: [] for name in names}
    start = time.perf_counter()
    settled = False
    for rounds in range(1, MAX_ROUNDS + 1):
        order.shuffle(names)
        for name in names:
            taken[name].append(sample[name](loops[name]) / loops[name])
        spent = time.perf_counter() - start
        if rounds >= MIN_ROUNDS and rounds % LOOK_EVERY == 0:
            settled = _settled({name: np.array(values) for name, values in taken.items()}, baseline)
        if settled or spent > (budget_s if rounds >= MIN_ROUNDS else 10 * budget_s):
            break
    return Timing({name: np.array(taken[name]) for name in sample}, loops, settled)


def _calibrate(sample: Sample, estimate_s: float) -> int:
    """Warm up, and find how many evaluations a sample needs to last."""
    loops = max(1, math.ceil(SAMPLE_S / max(estimate_s, 1e-7)))
    while loops > 1 or estimate_s < SAMPLE_S:
        elapsed = sample(loops)
        if elapsed >= SAMPLE_S:
            break
        loops = math.ceil(loops * max(1.2, 1.1 * SAMPLE_S / max(elapsed, 1e-6)))
    return loops


def _settled(samples: Mapping[str, stats.Samples], baseline: str) -> bool:
    for name, values in samples.items():
        if name != baseline:
            ratio = stats.ratio_interval(samples[baseline], values)
            if math.log(ratio.high / ratio.low) / 2 > TARGET:
                return False
    return True
