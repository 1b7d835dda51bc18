"""Time the providers of a case in rounds: once each per round, in random order, as many rounds as a pilot suggests.

Where data lies in memory affects speed by some per cent, and stays the same until somebody moves it: two like
providers would differ by that much in every round. So all data moves to new memory every few rounds, and those rounds
together are what the intervals count as one observation (`intervals.BLOCK_ROUNDS`). Where few rounds are affordable,
the data moves before every round.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, Protocol

import numpy as np

from mfbench.measure import planning
from mfbench.measure.devices.base import Reading
from mfbench.measure.planning import Goal, Pilot, Plan
from mfbench.stats import intervals

SAMPLE_S = 5e-3  # shortest sample; makes the clock's resolution and the pipe's latency negligible
ALIKE = 1.5  # providers within this factor of the baseline use its loop count
PILOT_PLACEMENTS = (2, 16)  # fewest and most in a pilot, which takes an eighth of the budget
RESOLVE_PILOT_PLACEMENTS = (2, 40)  # the same to resolve a difference, when all the rounds depend on the pilot
MAX_PILOTS = 4  # a pilot is repeated while a provider still warms up
EXTENSIONS = 3  # most times that rounds are added because they were noisier than the pilot
OVERRUN = 2  # without `resolve`, multiple of the budget after which no placement starts
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
    resolve: float | None  # the goal's; None: what the budget allows
    planned_s: float  # seconds that the rounds were expected to take
    took_s: float  # seconds that they took

    @property
    def disturbed(self) -> int:
        """Return the number of rounds among the samples that other programs disturbed."""
        rounds = max(len(provider.samples) for provider in self.providers.values())
        return rounds // self.placements * int((self.background_cores > DISTURBED).sum())


def time_in_rounds(
    hooks: TimingHooks,
    baseline: str,
    goal: Goal,
    seed: int,
    estimates_s: Mapping[str, float],
    announce: Callable[[Plan], None] = lambda _: None,
) -> CaseTiming:
    """Time the providers against each other, in two stages (Stein, 1945).

    A pilot warms up and measures the noise, which fixes the number of placements; its samples are not used. So no
    sample affects how many there are, and the intervals keep their coverage. To resolve a difference, placements are
    added if the samples are noisier than the pilot was. Their ratio is not looked at.

    A budget for very few rounds is spent without a pilot.

    Args:
        hooks: the samplers, and the rest that timing calls.
        baseline: the provider that the others' ratios are against.
        goal: when to stop. The rounds that an interval needs at least are taken even if they exceed the budget.
        seed: for the order within the rounds.
        estimates_s: rough seconds per evaluation of each provider.
        announce: is called with each plan before its rounds start.
    """
    order, deadline = random.Random(seed), hooks.clock() + goal.budget_s
    latest = deadline if goal.resolve else deadline + (OVERRUN - 1) * goal.budget_s
    hooks.place()
    loops = {name: _calibrate(sampler, estimates_s[name]) for name, sampler in hooks.samplers.items()}
    rounds = _Rounds(hooks, loops, order, latest, rounds_each=1)
    rounds.take(1)
    loops, pilot_rounds = _loops(rounds.samples(), baseline), 1
    rounds_each = planning.rounds_each(goal, rounds.placement_s)
    if planning.affords_pilot(goal, rounds.placement_s):
        pilot, taken = _pilot(_Rounds(hooks, loops, order, latest, rounds_each), baseline, goal)
        pilot_rounds += taken
        widths = planning.half_widths(goal, pilot, baseline)
        plan = planning.plan(goal, pilot, baseline, widths, rounds_each, deadline - hooks.clock())
        rounds = _Rounds(hooks, _loops(pilot.samples, baseline), order, latest, rounds_each)
    else:
        widths, round_s = {}, rounds.placement_s
        if loops == rounds.loops:
            pilot_rounds = 0  # the first round counts
        else:
            rounds = _Rounds(hooks, loops, order, latest, rounds_each)
        now = hooks.clock()
        plan = planning.without_pilot(rounds.placements, round_s, deadline - now, latest - now)
    announce(plan)
    rounds.take(plan.placements)
    rounds.replace_disturbed()
    if goal.resolve:
        _extend(rounds, baseline, goal, widths, announce)
    return rounds.timing(pilot_rounds, goal.resolve, plan.seconds)


def _pilot(rounds: _Rounds, baseline: str, goal: Goal) -> tuple[Pilot, int]:
    """Take a pilot, again while a provider warms up; return the last one, and the number of rounds of all."""
    fewest, most = RESOLVE_PILOT_PLACEMENTS if goal.resolve else PILOT_PLACEMENTS
    if rounds.rounds_each == 1:
        fewest = most = intervals.FEWEST
    taken = 0
    for _ in range(MAX_PILOTS):
        rounds = rounds.anew()
        rounds.take(1)
        rounds.take(min(most, max(fewest, int(goal.budget_s / 8 / rounds.placement_s))) - 1)
        samples = rounds.samples()
        taken += len(samples[baseline])
        if not any(_warming_up(values) for values in samples.values()):
            break
    return Pilot(samples, rounds.placements, rounds.placement_s), taken


def _extend(
    rounds: _Rounds, baseline: str, goal: Goal, widths: Mapping[str, float], announce: Callable[[Plan], None]
) -> None:
    """Add placements until the noise of the samples allows intervals that narrow, or the budget is spent."""
    for _ in range(EXTENSIONS):
        plan = planning.extension(
            goal, Pilot(rounds.samples(), rounds.placements, rounds.placement_s), baseline, widths, rounds.left_s
        )
        if plan is None:
            return
        announce(plan)
        rounds.take(plan.placements)
        rounds.replace_disturbed()


class _Rounds:
    """Takes placements of rounds, and keeps their readings."""

    def __init__(
        self, hooks: TimingHooks, loops: dict[str, int], order: random.Random, latest: float, rounds_each: int
    ) -> None:
        self.hooks, self.loops, self.order, self.latest, self.rounds_each = hooks, loops, order, latest, rounds_each
        self.rounds: list[dict[str, Reading]] = []
        self.background_cores: list[float] = []
        self.throttled = self.dropped = self.timed_placements = 0
        self.took_s = 0.0

    def anew(self) -> _Rounds:
        """Return rounds of the same kind that start with nothing."""
        return _Rounds(self.hooks, self.loops, self.order, self.latest, self.rounds_each)

    @property
    def placements(self) -> int:
        """Number of placements that are kept."""
        return len(self.background_cores)

    @property
    def placement_s(self) -> float:
        """Mean seconds of a placement; 0 before the first."""
        return self.took_s / max(1, self.timed_placements)

    @property
    def left_s(self) -> float:
        """Seconds in which placements may still start."""
        return self.latest - self.hooks.clock()

    def take(self, placements: int) -> None:
        """Take that many placements, or fewer if time runs out and there are enough rounds for an interval."""
        most_throttled = self.throttled + placements * self.rounds_each  # a device that is always throttled is timed so
        for _ in range(placements):
            if len(self.rounds) >= intervals.FEWEST and self.left_s < self.placement_s:
                return
            start = self.hooks.clock()
            self.hooks.place()
            self._round({name: 1 for name, loops in self.loops.items() if loops > 1})  # uncounted: pages are new
            self.hooks.background_cores()
            for _ in range(self.rounds_each):
                readings = self._round(self.loops)
                while self.throttled < most_throttled and any(reading.throttled for reading in readings.values()):
                    self.throttled += 1
                    readings = self._round(self.loops)
                self.rounds.append(readings)
            self.background_cores.append(self.hooks.background_cores())
            self.timed_placements += 1
            self.took_s += self.hooks.clock() - start

    def replace_disturbed(self) -> None:
        """Re-measure placements disturbed by other load, unless most were.

        The other load does not depend on the samples, so the intervals keep their coverage.
        """
        disturbed, planned = sum(cores > DISTURBED for cores in self.background_cores), self.placements
        if not disturbed or 2 * disturbed >= planned:
            return
        self.take(disturbed)
        calm = [at for at, cores in enumerate(self.background_cores) if cores <= DISTURBED]
        before = len(self.rounds)
        self._keep(calm if len(calm) >= planning.fewest(self.rounds_each) else range(planned))
        self.dropped += before - len(self.rounds)

    def _keep(self, placements: Iterable[int]) -> None:
        kept, each = list(placements), self.rounds_each
        self.rounds = [self.rounds[at * each + turn] for at in kept for turn in range(each)]
        self.background_cores = [self.background_cores[at] for at in kept]

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

    def timing(self, pilot_rounds: int, resolve: float | None, planned_s: float) -> CaseTiming:
        """Return the readings by provider."""
        self._keep(range(planning.evenly(self.placements)))
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
            placements=self.placements,
            throttled=self.throttled,
            dropped=self.dropped,
            background_cores=np.array(self.background_cores),
            resolve=resolve,
            planned_s=planned_s,
            took_s=self.took_s,
        )


def _warming_up(values: intervals.Samples) -> bool:
    """Return whether the second half of a pilot is faster than the first by more than the noise."""
    first, second = np.array_split(np.log(values), 2)
    return len(values) >= 4 and bool(
        np.median(first) - np.median(second) > 2 * max(intervals.spread(first), intervals.spread(second))
    )


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
