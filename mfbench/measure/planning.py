"""Plan the rounds of a case from a pilot: how many the goal needs, and how long they will take."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from mfbench.stats import intervals, sample_size

FEW_ROUNDS = 28  # fewest rounds that a budget for a pilot and placements of several rounds must allow
ENOUGH_ROUNDS = 18  # rounds that usually decide a large effect; more than the budget may be spent on them
FEWEST_PLACEMENTS = 6  # where the budget allows a pilot
MOST_PLACEMENTS = 1000  # bounds the size of a record
TARGET = 0.003  # half width of the ratios' intervals that the rounds aim at unless told what to resolve
CAUTION = 1.6  # factor on the pilot's noise, which is too low as often as too high
RESOLVE_CAUTION = 1.25  # the same where rounds are added later if they are too few
MIN_SHARE = 4  # at least 1 / MIN_SHARE of the affordable placements are taken, since noise may rise after the pilot


class Goal(NamedTuple):
    """What the rounds of a case are for, and how long they may take."""

    budget_s: float
    resolve: float | None = None  # full width of the intervals of the ratios; None: what the budget allows
    margin: float = 0.02  # of the verdicts
    confidence: float = intervals.CONFIDENCE  # of the intervals that decide


class Plan(NamedTuple):
    """Rounds that are about to start."""

    placements: int
    rounds_each: int  # rounds in a placement
    seconds: float  # that they will take
    wanted_s: float  # seconds that the goal takes, which may be more than the budget allows
    further: bool = False  # after others, which were not enough

    @property
    def rounds(self) -> int:
        """Number of rounds."""
        return self.placements * self.rounds_each

    def __str__(self) -> str:
        more, plural = " more" if self.further else "", "" if self.rounds == 1 else "s"
        return f"{self.rounds}{more} round{plural}, about {duration(self.seconds)}"


class Pilot(NamedTuple):
    """Rounds that are timed to plan the others, and are not among their samples."""

    samples: Mapping[str, intervals.Samples]  # seconds by provider, one a round
    placements: int
    placement_s: float

    @property
    def rounds(self) -> int:
        """Number of rounds."""
        return max(map(len, self.samples.values()), default=0)


def half_widths(goal: Goal, pilot: Pilot, baseline: str) -> dict[str, float]:
    """Return the half width that the interval of each provider's log ratio should have.

    A ratio that the pilot shows to lie far beyond the margin needs less precision for its verdict.
    """
    others = [name for name in pilot.samples if name != baseline]
    if goal.resolve is None:
        return dict.fromkeys(others, TARGET)
    found = {}
    for name in others:
        ratio = intervals.ratio_interval(pilot.samples[baseline], pilot.samples[name], goal.confidence)
        found[name] = max(math.log1p(goal.resolve) / 2, sample_size.clearance(ratio, goal.margin))
    return found


def growth(
    goal: Goal,
    samples: Mapping[str, intervals.Samples],
    baseline: str,
    half_widths: Mapping[str, float],
    caution: float = 1.0,
) -> float:
    """Return how many times as many rounds as these the half widths need: the most that a provider needs.

    It depends on the noise of the samples and not on their ratio, so that looking at it does not bias the verdict.

    Args:
        goal: its confidence counts.
        samples: by provider.
        baseline: provider that the ratios are against.
        half_widths: of the interval of each other provider's log ratio.
        caution: factor on the noise.
    """
    centres = {name: intervals.ratio_location(samples[baseline], samples[name]) for name in half_widths}
    cautious = {name: centre._replace(error=caution * centre.error) for name, centre in centres.items()}
    return max((sample_size.growth(cautious[name], half_widths[name], goal.confidence) for name in cautious), default=0)


def fewest(rounds_each: int) -> int:
    """Return the fewest placements of that many rounds."""
    return FEWEST_PLACEMENTS if rounds_each > 1 else intervals.FEWEST


def rounds_each(goal: Goal, round_s: float) -> int:
    """Return the number of rounds in a placement: one if the budget allows only a few rounds of that many seconds."""
    return 1 if goal.budget_s < FEW_ROUNDS * round_s else intervals.BLOCK_ROUNDS


def affords_pilot(goal: Goal, round_s: float) -> bool:
    """Return whether a pilot leaves enough of the budget; where only a few rounds fit, it pays off only to resolve."""
    if rounds_each(goal, round_s) > 1:
        return True
    return goal.resolve is not None and goal.budget_s > 3 * intervals.FEWEST * round_s


def plan(
    goal: Goal, pilot: Pilot, baseline: str, half_widths: Mapping[str, float], rounds_each: int, left_s: float
) -> Plan:
    """Return the rounds that should make the intervals of all ratios narrow enough, or as many as are affordable."""
    affordable = max(fewest(rounds_each), int(left_s / pilot.placement_s))
    caution = RESOLVE_CAUTION if goal.resolve else CAUTION
    needed = pilot.placements * growth(goal, pilot.samples, baseline, half_widths, caution)
    wanted = max(fewest(rounds_each), math.ceil(min(needed, MOST_PLACEMENTS)))
    share = 0 if goal.resolve else affordable // MIN_SHARE
    placements = evenly(min(max(wanted, share), affordable, MOST_PLACEMENTS))
    return Plan(placements, rounds_each, placements * pilot.placement_s, needed * pilot.placement_s)


def without_pilot(taken: int, round_s: float, left_s: float, latest_s: float) -> Plan:
    """Return the rounds that are affordable beyond those taken, each its own placement.

    Args:
        taken: rounds that count.
        round_s: seconds of a round.
        left_s: seconds left of the budget.
        latest_s: seconds in which `ENOUGH_ROUNDS` may be completed.
    """
    enough = min(ENOUGH_ROUNDS - taken, int(latest_s / round_s))
    rounds = max(intervals.FEWEST - taken, enough, int(left_s / round_s))
    return Plan(rounds, 1, rounds * round_s, rounds * round_s)


def extension(goal: Goal, taken: Pilot, baseline: str, half_widths: Mapping[str, float], left_s: float) -> Plan | None:
    """Return the placements to add to those taken for intervals that narrow; None if they suffice or time is up."""
    missing = taken.placements * (growth(goal, taken.samples, baseline, half_widths) - 1)
    affordable = int(left_s / taken.placement_s)
    most = min(taken.placements, MOST_PLACEMENTS - taken.placements)  # at most doubled: the noise is an estimate
    placements = min(math.ceil(min(missing, MOST_PLACEMENTS)), affordable, most)
    if placements < 1:
        return None
    each = taken.rounds // taken.placements
    return Plan(placements, each, placements * taken.placement_s, missing * taken.placement_s, further=True)


def evenly(placements: int) -> int:
    """Round down so that no block of the intervals ends within a placement, if blocks hold several placements."""
    while placements % math.ceil(placements / intervals.BLOCKS[1]):
        placements -= 1
    return placements


def duration(seconds: float) -> str:
    """Return seconds in words, with about two digits."""
    for unit, scale in (("s", 1.0), ("min", 60.0)):
        if seconds < 90 * scale:
            return f"{float(f'{max(seconds / scale, 0.1):.2g}'):g} {unit}"
    return f"{seconds / 3600:.0f} h"
