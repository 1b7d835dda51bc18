"""Rounds: every provider of a case is timed once in each, in random order; a pilot decides how many there are."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from mfbench import stats

SAMPLE_S = 2e-3  # a sample is at least so long, so that the clock and the pipe do not count
PILOT_ROUNDS = (5, 12)  # fewest, and most where the budget has room
MAX_PILOTS = 4
MIN_ROUNDS, MAX_ROUNDS = 15, 400
TARGET = 0.005  # half width of the ratios' intervals that the number of rounds aims at
CAUTION = 1.6  # a pilot sees too little noise as often as too much
OVERRUN = 10  # times the budget, at most, for the least number of rounds

Sample = Callable[[int], float]  # loops -> seconds for all of them


class Timing(NamedTuple):
    """Seconds per evaluation of every provider, round by round."""

    samples: dict[str, stats.Samples]
    loops: dict[str, int]
    pilot_rounds: int  # timed, but not among the samples


def time_in_rounds(
    sample: Mapping[str, Sample], baseline: str, budget_s: float, seed: int, estimate_s: Mapping[str, float]
) -> Timing:
    """Time the providers against each other, in two stages (Stein, 1945).

    A pilot warms up and shows the noise; it fixes the number of rounds, and the samples are of those rounds alone.
    So no sample decides whether there are more to come, and the intervals keep their coverage.

    Args:
        sample: for each provider, a function that runs so many loops and returns the seconds they took.
        baseline: the provider that the others' ratios are against.
        budget_s: seconds for all rounds; at least `MIN_ROUNDS` are kept unless they take `OVERRUN` times as long.
        seed: of the order inside the rounds.
        estimate_s: seconds an evaluation of each provider takes, roughly.
    """
    order = random.Random(seed)
    loops = {name: _calibrate(sample[name], estimate_s[name]) for name in sample}
    start = time.perf_counter()

    def rounds(count: int, until: float) -> dict[str, stats.Samples]:
        names = list(sample)
        taken: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(count):
            order.shuffle(names)
            for name in names:
                taken[name].append(sample[name](loops[name]) / loops[name])
            if time.perf_counter() > until:
                break
        return {name: np.array(taken[name]) for name in sample}

    pilot_rounds = 0
    for _ in range(MAX_PILOTS):
        pilot_start = time.perf_counter()
        fewest, most = PILOT_ROUNDS
        pilot = rounds(fewest, start + OVERRUN * budget_s)
        a_round = (time.perf_counter() - pilot_start) / fewest
        more = min(most - fewest, int(budget_s / 8 / a_round))
        if more > 0:
            pilot = {name: np.append(pilot[name], values) for name, values in rounds(more, math.inf).items()}
        pilot_rounds += len(pilot[baseline])
        if not any(_warming_up(values) for values in pilot.values()):
            break
    left = start + budget_s - time.perf_counter()
    count = min(_rounds_needed(pilot, baseline), max(MIN_ROUNDS, int(left / a_round)))
    return Timing(rounds(count, start + OVERRUN * budget_s), loops, pilot_rounds)


def _warming_up(values: stats.Samples) -> bool:
    """The second half of a pilot is faster than the first by more than its noise."""
    first, second = np.array_split(np.log(values), 2)
    return len(values) >= 4 and bool(
        np.median(first) - np.median(second) > 2 * max(stats.spread(first), stats.spread(second))
    )


def _rounds_needed(pilot: Mapping[str, stats.Samples], baseline: str) -> int:
    """Rounds after which the intervals of all ratios should be as narrow as `TARGET`, from the pilot's noise."""
    logs = [np.log(pilot[baseline]) - np.log(values) for name, values in pilot.items() if name != baseline]
    noise = CAUTION * max((stats.spread(ratios) for ratios in logs), default=0.0)
    return min(max(math.ceil((2 * noise / TARGET) ** 2), MIN_ROUNDS), MAX_ROUNDS)


def _calibrate(sample: Sample, estimate_s: float) -> int:
    """Warm up, and find how many evaluations a sample needs to last."""
    loops = max(1, math.ceil(SAMPLE_S / max(estimate_s, 1e-7)))
    while loops > 1 or estimate_s < SAMPLE_S:
        elapsed = sample(loops)
        if elapsed >= SAMPLE_S:
            break
        loops = math.ceil(loops * max(1.2, 1.1 * SAMPLE_S / max(elapsed, 1e-6)))
    return loops
