"""Rounds: every provider of a case is timed once in each, in random order; a pilot decides how many there are.

Where the data lies in memory is worth some per cent, and stays as it is for as long as nobody moves it: two like
providers would differ by it in every round. So it is drawn anew every few rounds, and those rounds are what the
intervals count as one observation (`stats.BLOCK_ROUNDS`).
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import numpy as np

from mfbench.measure.devices.base import Reading
from mfbench.stats import intervals

SAMPLE_S = 5e-3  # a sample is at least so long, so that the clock and the pipe do not count
ALIKE = 1.5  # factor between providers whose samples have as many evaluations
PILOT_PLACEMENTS = 16  # at most, in an eighth of the budget; one alone where a second would take a quarter
MAX_PILOTS = 4
PLACEMENTS = (6, 300)  # fewest and most, of `stats.BLOCK_ROUNDS` rounds each
TARGET = 0.003  # half width of the ratios' intervals that the number of rounds aims at
CAUTION = 1.6  # a pilot sees too little noise as often as too much
LEAST_SHARE = 4  # at least a quarter of the placements that the budget allows, since noise may come after the pilot
OVERRUN = 10  # times the budget, at most, for the least number of rounds
DISTURBED = 0.25  # cores that other programs keep busy in a placement that is timed again, or marked


class Sample(Protocol):
    """Times a provider."""

    def __call__(self, loops: int, core: int | None = None) -> Reading:
        """So many evaluations, beginning on that core of the host."""


class Hands(NamedTuple):
    """What is done to the providers, and seen of the machine, while they are timed."""

    sample: Mapping[str, Sample]
    place: Callable[[], None] = lambda: None  # draw anew where in memory every provider's data lies
    foreign: Callable[[], float] = lambda: 0.0  # cores that others kept busy since the last call
    clock: Callable[[], float] = time.perf_counter


class Timing(NamedTuple):
    """Seconds per evaluation of every provider, round by round."""

    samples: dict[str, intervals.Samples]
    loops: dict[str, int]
    cold: dict[str, bool]  # every sample of the provider was
    gaps: dict[str, bool]  # some sample of the provider had
    pilot_rounds: int  # timed, but not among the samples
    placements: int
    throttled: int  # rounds that were timed again, since the device was held back in them
    dropped: int  # rounds that are not among the samples, since other programs kept the machine busy
    foreign: intervals.Samples  # cores that others kept busy, by placement

    @property
    def disturbed(self) -> int:
        """Rounds among the samples in which other programs kept the machine busy."""
        return intervals.BLOCK_ROUNDS * int((self.foreign > DISTURBED).sum())


def time_in_rounds(
    hands: Hands, baseline: str, budget_s: float, seed: int, estimate_s: Mapping[str, float]
) -> Timing:  # fmt: skip
    """Time the providers against each other, in two stages (Stein, 1945).

    A pilot warms up and shows the noise; it fixes the number of placements, and the samples are of those alone. So no
    sample decides whether there are more to come, and the intervals keep their coverage.

    Args:
        hands: a sample of each provider, and the rest.
        baseline: the provider that the others' ratios are against.
        budget_s: seconds for all rounds; the fewest placements are kept unless they take `OVERRUN` times as long.
        seed: of the order inside the rounds.
        estimate_s: seconds an evaluation of each provider takes, roughly.
    """
    start = hands.clock()
    hands.place()
    loops = {name: _calibrate(sample, estimate_s[name]) for name, sample in hands.sample.items()}
    fewest, most = PLACEMENTS
    pilot_rounds = 0
    for _ in range(MAX_PILOTS):
        pilot_start = hands.clock()
        pilot = _Rounds(hands, loops, random.Random(seed), start + OVERRUN * budget_s)
        pilot.take(1)
        each = hands.clock() - pilot_start
        pilot.take(min(PILOT_PLACEMENTS - 1, max(int(each < budget_s / 4), int(budget_s / 8 / each))))
        seed += 1
        pilot_rounds += len(pilot.samples()[baseline])
        if not any(_warming_up(values) for values in pilot.samples().values()):
            break
    left = start + budget_s - hands.clock()
    rounds = _Rounds(hands, _loops(pilot.samples(), baseline), random.Random(seed), start + OVERRUN * budget_s)
    affordable = max(fewest, int(left / each))
    wanted = max(_placements_needed(pilot.samples(), baseline), affordable // LEAST_SHARE)
    rounds.take(_evenly(min(wanted, affordable, most)))
    rounds.replace_disturbed()
    return rounds.timing(pilot_rounds)


class _Rounds:
    """Takes rounds, and keeps what came of them."""

    def __init__(self, hands: Hands, loops: dict[str, int], order: random.Random, until: float) -> None:
        self.hands, self.loops, self.order, self.until = hands, loops, order, until
        self.rounds: list[dict[str, Reading]] = []
        self.foreign: list[float] = []
        self.throttled = self.dropped = 0

    def take(self, placements: int) -> None:
        """So many placements, or fewer where time has run out."""
        most_again = placements * intervals.BLOCK_ROUNDS  # a device that is always held back is timed as it is
        for _ in range(placements):
            self.hands.place()
            self._round({name: 1 for name, loops in self.loops.items() if loops > 1})  # does not count: pages are new
            self.hands.foreign()
            for _ in range(intervals.BLOCK_ROUNDS):
                readings = self._round(self.loops)
                while self.throttled < most_again and any(reading.throttled for reading in readings.values()):
                    self.throttled += 1
                    readings = self._round(self.loops)
                self.rounds.append(readings)
                if self.hands.clock() > self.until:
                    return
            self.foreign.append(self.hands.foreign())

    def replace_disturbed(self) -> None:
        """Time anew, and drop, the placements that other programs disturbed, unless they were most.

        What the others do does not depend on the samples, so the intervals keep their coverage.
        """
        disturbed = sum(load > DISTURBED for load in self.foreign)
        planned = len(self.foreign)
        if not disturbed or 2 * disturbed >= planned or self.hands.clock() > self.until:
            return
        self.take(disturbed)
        calm = [at for at, load in enumerate(self.foreign) if load <= DISTURBED]
        kept = calm[: _evenly(len(calm))] if len(calm) >= PLACEMENTS[0] else range(planned)
        rounds = [
            self.rounds[at * intervals.BLOCK_ROUNDS + turn] for at in kept for turn in range(intervals.BLOCK_ROUNDS)
        ]
        self.dropped = len(self.rounds) - len(rounds)
        self.rounds, self.foreign = rounds, [self.foreign[at] for at in kept]

    def _round(self, loops: Mapping[str, int]) -> dict[str, Reading]:
        """All providers begin on the core on which the system put the first: what it is worth is in no ratio then."""
        names = self.order.sample(list(loops), len(loops))
        readings: dict[str, Reading] = {}
        core = None
        for name in names:
            readings[name] = self.hands.sample[name](loops[name], core)
            core = readings[name].core if core is None else core
        return readings

    def samples(self) -> dict[str, intervals.Samples]:
        """Seconds per evaluation."""
        return {
            name: np.array([readings[name].seconds / loops for readings in self.rounds])
            for name, loops in self.loops.items()
        }

    def timing(self, pilot_rounds: int) -> Timing:
        return Timing(
            samples=self.samples(),
            loops=self.loops,
            cold={name: all(readings[name].cold for readings in self.rounds) for name in self.loops},
            gaps={name: any(readings[name].gaps for readings in self.rounds) for name in self.loops},
            pilot_rounds=pilot_rounds,
            placements=math.ceil(len(self.rounds) / intervals.BLOCK_ROUNDS),
            throttled=self.throttled,
            dropped=self.dropped,
            foreign=np.array(self.foreign),
        )


def _warming_up(values: intervals.Samples) -> bool:
    """The second half of a pilot is faster than the first by more than its noise."""
    first, second = np.array_split(np.log(values), 2)
    return len(values) >= 4 and bool(
        np.median(first) - np.median(second) > 2 * max(intervals.spread(first), intervals.spread(second))
    )


def _placements_needed(pilot: Mapping[str, intervals.Samples], baseline: str) -> int:
    """After so many the intervals of all ratios should be as narrow as `TARGET`, going by the pilot's noise."""
    logs = [np.log(pilot[baseline]) - np.log(values) for name, values in pilot.items() if name != baseline]
    noise = CAUTION * max(map(_placement_noise, logs), default=0.0)
    fewest, most = PLACEMENTS
    return min(max(math.ceil((2 * noise / TARGET) ** 2), fewest), most)


def _placement_noise(ratios: intervals.Samples) -> float:
    """By which the mean over a placement's rounds varies: within placements or between them, whichever says more."""
    placements = np.array_split(ratios, math.ceil(len(ratios) / intervals.BLOCK_ROUNDS))
    within = intervals.spread(ratios) / math.sqrt(intervals.BLOCK_ROUNDS)
    return max(within, intervals.spread(np.array([np.median(rounds) for rounds in placements])))


def _evenly(placements: int) -> int:
    """So many that no block of the intervals ends within a placement, where there are more than blocks."""
    while placements % math.ceil(placements / intervals.BLOCKS[1]):
        placements -= 1
    return placements


def _loops(pilot: Mapping[str, intervals.Samples], baseline: str) -> dict[str, int]:
    """How many evaluations a sample of each provider needs to last, going by the pilot.

    Those about as fast as the baseline get as many as it does. The first ones of a sample are slower than the others,
    so of two like providers the one with more of them would look faster by a per cent.
    """
    seconds = {name: float(np.median(values)) for name, values in pilot.items()}
    alike = [name for name, value in seconds.items() if 1 / ALIKE < value / seconds[baseline] < ALIKE]
    fastest = min(seconds[name] for name in alike)
    return {name: math.ceil(SAMPLE_S / (fastest if name in alike else seconds[name])) for name in seconds}


def _calibrate(sample: Sample, estimate_s: float) -> int:
    """Warm up, and find roughly how many evaluations a sample needs to last."""
    loops = max(1, math.ceil(SAMPLE_S / max(estimate_s, 1e-7)))
    while loops > 1 or estimate_s < SAMPLE_S:
        elapsed = sample(loops).seconds
        if elapsed >= SAMPLE_S:
            break
        loops = math.ceil(loops * max(1.2, 1.1 * SAMPLE_S / max(elapsed, 1e-6)))
    return loops
