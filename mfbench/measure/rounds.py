"""Time the providers of a case in rounds: once each per round, in random order, as many rounds as a pilot suggests.

Where data lies in memory affects speed by some per cent, and stays the same until somebody moves it: two like
providers would differ by that much in every round. So all data moves to new memory every few rounds, and those rounds
together are what the intervals count as one observation (`intervals.BLOCK_ROUNDS`).
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

SAMPLE_S = 5e-3  # shortest sample; makes the clock's resolution and the pipe's latency negligible
ALIKE = 1.5  # providers within this factor of the baseline use its loop count
PILOT_PLACEMENTS = 16  # most in a pilot, which takes an eighth of the budget, or one placement if that takes a quarter
MAX_PILOTS = 4  # a pilot is repeated while a provider still warms up
PLACEMENTS = (6, 300)  # fewest and most, of `intervals.BLOCK_ROUNDS` rounds each
TARGET = 0.003  # half width of the ratios' intervals that the number of rounds aims at
CAUTION = 1.6  # factor on the pilot's noise, which is too low as often as too high
MIN_SHARE = 4  # at least 1 / MIN_SHARE of the affordable placements are taken, since noise may rise after the pilot
OVERRUN = 10  # multiple of the budget that the fewest placements may take
DISTURBED = 0.25  # busy cores of other programs above which a placement is measured again, or marked


class Sampler(Protocol):
    """Takes samples of one provider."""

    def __call__(self, loops: int, core: int | None = None) -> Reading:
        """Time `loops` evaluations, starting on that core of the host."""


class TimingHooks(NamedTuple):
    """Everything that timing calls."""

    samplers: Mapping[str, Sampler]  # by provider
    place: Callable[[], None] = lambda: None  # moves every provider's data to new memory
    background_cores: Callable[[], float] = lambda: 0.0  # cores that other programs kept busy since the last call
    clock: Callable[[], float] = time.perf_counter


class ProviderTiming(NamedTuple):
    """Samples of one provider."""

    samples: intervals.Samples  # seconds per evaluation, one a round
    loops: int  # evaluations per sample
    cold: bool  # all samples started with a cleared cache
    gaps: bool  # some sample may contain gaps between launches

    @property
    def median_s(self) -> float:
        """Return the median seconds per evaluation."""
        return float(np.median(self.samples))


class CaseTiming(NamedTuple):
    """Samples of all providers of a case, round by round, and how the rounds went."""

    providers: dict[str, ProviderTiming]
    pilot_rounds: int  # timed, and not among the samples
    placements: int
    throttled: int  # rounds measured again because the device was throttled
    dropped: int  # rounds left out because other programs kept the machine busy
    background_cores: intervals.Samples  # cores that other programs kept busy, by placement

    @property
    def disturbed(self) -> int:
        """Return the number of rounds among the samples that other programs disturbed."""
        return intervals.BLOCK_ROUNDS * int((self.background_cores > DISTURBED).sum())


def time_in_rounds(
    hooks: TimingHooks, baseline: str, budget_s: float, seed: int, estimates_s: Mapping[str, float]
) -> CaseTiming:
    """Time the providers against each other, in two stages (Stein, 1945).

    A pilot warms up and measures the noise, which fixes the number of placements; its samples are not used. So no
    sample affects how many there are, and the intervals keep their coverage.

    Args:
        hooks: the samplers, and the rest that timing calls.
        baseline: the provider that the others' ratios are against.
        budget_s: seconds for all rounds; the fewest placements are taken even if they take `OVERRUN` times as long.
        seed: for the order within the rounds.
        estimates_s: rough seconds per evaluation of each provider.
    """
    start = hooks.clock()
    hooks.place()
    loops = {name: _calibrate(sampler, estimates_s[name]) for name, sampler in hooks.samplers.items()}
    fewest, most = PLACEMENTS
    pilot_rounds = 0
    for _ in range(MAX_PILOTS):
        pilot_start = hooks.clock()
        pilot = _Rounds(hooks, loops, random.Random(seed), start + OVERRUN * budget_s)
        pilot.take(1)
        placement_s = hooks.clock() - pilot_start
        pilot.take(min(PILOT_PLACEMENTS - 1, max(int(placement_s < budget_s / 4), int(budget_s / 8 / placement_s))))
        seed += 1
        pilot_samples = pilot.samples()
        pilot_rounds += len(pilot_samples[baseline])
        if not any(_warming_up(values) for values in pilot_samples.values()):
            break
    left = start + budget_s - hooks.clock()
    rounds = _Rounds(hooks, _loops(pilot_samples, baseline), random.Random(seed), start + OVERRUN * budget_s)
    affordable = max(fewest, int(left / placement_s))
    wanted = max(_placements_needed(pilot_samples, baseline), affordable // MIN_SHARE)
    rounds.take(_evenly(min(wanted, affordable, most)))
    rounds.replace_disturbed()
    return rounds.timing(pilot_rounds)


class _Rounds:
    """Takes rounds and keeps their readings."""

    def __init__(self, hooks: TimingHooks, loops: dict[str, int], order: random.Random, deadline: float) -> None:
        self.hooks, self.loops, self.order, self.deadline = hooks, loops, order, deadline
        self.rounds: list[dict[str, Reading]] = []
        self.background_cores: list[float] = []
        self.throttled = self.dropped = 0

    def take(self, placements: int) -> None:
        """Take that many placements, or fewer if the deadline passes."""
        most_again = placements * intervals.BLOCK_ROUNDS  # a device that is always throttled is timed that way
        for _ in range(placements):
            self.hooks.place()
            self._round({name: 1 for name, loops in self.loops.items() if loops > 1})  # uncounted: pages are new
            self.hooks.background_cores()
            for _ in range(intervals.BLOCK_ROUNDS):
                readings = self._round(self.loops)
                while self.throttled < most_again and any(reading.throttled for reading in readings.values()):
                    self.throttled += 1
                    readings = self._round(self.loops)
                self.rounds.append(readings)
                if self.hooks.clock() > self.deadline:
                    return
            self.background_cores.append(self.hooks.background_cores())

    def replace_disturbed(self) -> None:
        """Re-measure placements disturbed by other load, unless most were.

        The other load does not depend on the samples, so the intervals keep their coverage.
        """
        disturbed = sum(cores > DISTURBED for cores in self.background_cores)
        planned = len(self.background_cores)
        if not disturbed or 2 * disturbed >= planned or self.hooks.clock() > self.deadline:
            return
        self.take(disturbed)
        calm = [at for at, cores in enumerate(self.background_cores) if cores <= DISTURBED]
        kept = calm[: _evenly(len(calm))] if len(calm) >= PLACEMENTS[0] else range(planned)
        rounds = [
            self.rounds[at * intervals.BLOCK_ROUNDS + turn] for at in kept for turn in range(intervals.BLOCK_ROUNDS)
        ]
        self.dropped = len(self.rounds) - len(rounds)
        self.rounds, self.background_cores = rounds, [self.background_cores[at] for at in kept]

    def _round(self, loops: Mapping[str, int]) -> dict[str, Reading]:
        """Sample every provider once, each starting on the core that the first one ran on.

        So differences between cores cancel in the ratios.
        """
        names = self.order.sample(list(loops), len(loops))
        readings: dict[str, Reading] = {}
        core = None
        for name in names:
            readings[name] = self.hooks.samplers[name](loops[name], core)
            core = readings[name].core if core is None else core
        return readings

    def samples(self) -> dict[str, intervals.Samples]:
        """Return the seconds per evaluation of every provider."""
        return {
            name: np.array([readings[name].seconds / loops for readings in self.rounds])
            for name, loops in self.loops.items()
        }

    def timing(self, pilot_rounds: int) -> CaseTiming:
        """Return the readings by provider."""
        providers = {
            name: ProviderTiming(
                samples=samples,
                loops=self.loops[name],
                cold=all(readings[name].cold for readings in self.rounds),
                gaps=any(readings[name].gaps for readings in self.rounds),
            )
            for name, samples in self.samples().items()
        }
        return CaseTiming(
            providers=providers,
            pilot_rounds=pilot_rounds,
            placements=math.ceil(len(self.rounds) / intervals.BLOCK_ROUNDS),
            throttled=self.throttled,
            dropped=self.dropped,
            background_cores=np.array(self.background_cores),
        )


def _warming_up(values: intervals.Samples) -> bool:
    """Return whether the second half of a pilot is faster than the first by more than the noise."""
    first, second = np.array_split(np.log(values), 2)
    return len(values) >= 4 and bool(
        np.median(first) - np.median(second) > 2 * max(intervals.spread(first), intervals.spread(second))
    )


def _placements_needed(pilot: Mapping[str, intervals.Samples], baseline: str) -> int:
    """Return how many placements should make all ratios' intervals as narrow as `TARGET`, given the pilot's noise."""
    logs = [np.log(pilot[baseline]) - np.log(values) for name, values in pilot.items() if name != baseline]
    noise = CAUTION * max(map(_placement_noise, logs), default=0.0)
    fewest, most = PLACEMENTS
    return min(max(math.ceil((2 * noise / TARGET) ** 2), fewest), most)


def _placement_noise(ratios: intervals.Samples) -> float:
    """Estimate the standard deviation of a placement's mean from the noise within or between placements.

    The larger of the two counts.
    """
    placements = np.array_split(ratios, math.ceil(len(ratios) / intervals.BLOCK_ROUNDS))
    within = intervals.spread(ratios) / math.sqrt(intervals.BLOCK_ROUNDS)
    return max(within, intervals.spread(np.array([np.median(rounds) for rounds in placements])))


def _evenly(placements: int) -> int:
    """Round down so that no block of the intervals ends within a placement, if blocks hold several placements."""
    while placements % math.ceil(placements / intervals.BLOCKS[1]):
        placements -= 1
    return placements


def _loops(pilot: Mapping[str, intervals.Samples], baseline: str) -> dict[str, int]:
    """Return how many evaluations make a sample of each provider long enough, given the pilot.

    Providers about as fast as the baseline use its count. The first evaluations of a sample are slower than the rest,
    so of two like providers the one with more evaluations would look faster by about a per cent.
    """
    seconds = {name: float(np.median(values)) for name, values in pilot.items()}
    alike = [name for name, value in seconds.items() if 1 / ALIKE < value / seconds[baseline] < ALIKE]
    fastest = min(seconds[name] for name in alike)
    return {name: math.ceil(SAMPLE_S / (fastest if name in alike else seconds[name])) for name in seconds}


def _calibrate(sampler: Sampler, estimate_s: float) -> int:
    """Warm up, and find roughly how many evaluations make a sample long enough."""
    loops = max(1, math.ceil(SAMPLE_S / max(estimate_s, 1e-7)))
    while loops > 1 or estimate_s < SAMPLE_S:
        elapsed = sampler(loops).seconds
        if elapsed >= SAMPLE_S:
            break
        loops = math.ceil(loops * max(1.2, 1.1 * SAMPLE_S / max(elapsed, 1e-6)))
    return loops
