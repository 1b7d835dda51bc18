"""Comparison of two sets of measurements: a verdict for each case, and an exit code for all of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from mfbench.problems.cases import Case
from mfbench.results.crowding import Crowding, worst
from mfbench.results.records import Record
from mfbench.stats import intervals, sample_size
from mfbench.stats.margin import checked_margin

ENVIRONMENT = ("cpu", "cpus", "gpu", "driver", "system", "threads")  # must match, and so must installed versions
SUBJECT = "mfbench"  # may differ in version: it is what is compared

Outcome = Literal["faster", "slower", "same", "inconclusive", "broken", "fixed", "failing"]
OUTCOMES: dict[Outcome, str] = {  # in the order of summaries, with the words for people
    "faster": "faster",
    "slower": "slower",
    "same": "same",
    "inconclusive": "inconclusive",
    "broken": "broken",
    "fixed": "fixed",
    "failing": "still failing",
}
REGRESSIONS = ("slower", "broken")
TIMED = ("faster", "slower", "same", "inconclusive")


class Quartiles(NamedTuple):
    """Summary of samples that were not kept, in seconds."""

    median: float
    interquartile_range: float
    rounds: int


class Measurement(NamedTuple):
    """A provider's result on a case, from mfbench or from another tool."""

    case: Case | str
    provider: str
    device: str
    status: str  # as in a record
    reason: str | None
    samples: intervals.Samples | Quartiles | None  # seconds in the order measured; None: not ok
    env: Mapping[str, Any]
    crowding: Crowding | None = None  # other programs that disturbed at least half of the rounds
    tool: str = SUBJECT
    took_s: float | None = None  # seconds that its rounds took, of all providers together

    @property
    def key(self) -> tuple[Case | str, str, str]:
        """What identifies the measurement within a run."""
        return self.case, self.provider, self.device

    @property
    def label(self) -> str:
        """The case in words."""
        name = self.case.label if isinstance(self.case, Case) else self.case
        return " · ".join(part for part in (name, self.device) if part)

    @property
    def usable(self) -> bool:
        """False for an `ok` measurement whose times are missing, not finite or not positive."""
        if self.status != "ok" or not isinstance(self.samples, np.ndarray):
            return self.status != "ok" or self.samples is not None
        return self.samples.size > 0 and bool(np.isfinite(self.samples).all() and (self.samples > 0).all())

    @property
    def median_s(self) -> float | None:
        """Median time in seconds; None if not ok."""
        if self.samples is None:
            return None
        return self.samples.median if isinstance(self.samples, Quartiles) else float(np.median(self.samples))


class Pair(NamedTuple):
    """A case measured on both sides.

    Without times on both sides the outcome is `broken` (ok before, not ok now), `fixed` (the reverse) or `failing`.
    """

    base: Measurement
    new: Measurement
    ratio: intervals.Interval | None  # base / new: the speed-up of the new side
    outcome: Outcome
    reason: str | None = None  # why the outcome is inconclusive, if not for noise
    needs_s: float | None = None  # seconds of rounds that would probably decide an inconclusive verdict on a paired run


class Difference(NamedTuple):
    """A property of the environment that differs between the sides."""

    name: str
    base: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.name} is {self.new}, was {self.base}"


class Comparison(NamedTuple):
    """Verdicts on the cases of both sides, and the cases that one side lacks."""

    pairs: Sequence[Pair]
    missing: Sequence[Measurement]  # only on the base's side
    added: Sequence[Measurement]  # only on the new side
    environment: Sequence[Difference]
    margin: float
    paired: bool
    base: str
    new: str
    allow_missing: bool

    @property
    def timed(self) -> int:
        """Number of pairs with times on both sides, which is the size of the family of verdicts."""
        return sum(pair.ratio is not None for pair in self.pairs)

    @property
    def exit_code(self) -> int:
        """0 no regression; 1 regression; 3 a case is undecided; 4 nothing to compare, or the new side lacks cases."""
        outcomes = {pair.outcome for pair in self.pairs}
        if outcomes.intersection(REGRESSIONS):
            return 1
        if outcomes <= {"failing"} or (self.missing and not self.allow_missing):
            return 4
        return 3 if "inconclusive" in outcomes else 0


def measurement(record: Record) -> Measurement:
    """Convert a record."""
    timing = record.timing if record.status == "ok" else None
    samples = None if timing is None else np.array(timing.samples_s)
    crowding = record.crowding if timing else None
    return Measurement(
        record.case, record.provider, record.device, record.status, record.reason, samples, record.env, crowding,
        took_s=timing.took_s if timing else None,
    )  # fmt: skip


def compare(
    base: Iterable[Measurement],
    new: Iterable[Measurement],
    margin: float,
    *,
    paired: bool = False,
    names: tuple[str, str] = ("base", "new"),
    allow_missing: bool = False,
) -> Comparison:
    """Match measurements by case, provider and device, and judge each pair.

    The verdicts hold jointly: with N timed pairs each interval has confidence 1 - 0.05 / N (Bonferroni), so with a
    probability of 95 % no verdict is wrong because of noise within the runs. Holm's procedure is slightly more powerful
    but yields no intervals, so the printed interval would not be the one that decided, and `same` would not be
    covered. Bonferroni needs no independence; the cases of a run share the machine and are not independent.

    Args:
        base, new: the last measurement of each key counts; skipped ones count as absent.
        margin: relative difference up to which two times count as the same.
        paired: the samples of a pair were measured in the same rounds of one run.
        names: of the two sides, for people.
        allow_missing: cases that the new side lacks do not change the exit code.

    Raises:
        UsageError: the margin is no fraction.
    """
    bases, news = ({m.key: m for m in side if m.status != "skipped"} for side in (base, new))
    matched = [(bases[key], news[key]) for key in bases if key in news]
    timed = sum(old.samples is not None and now.samples is not None for old, now in matched)
    confidence = intervals.family_confidence(timed)
    return Comparison(
        pairs=[_judge(old, now, checked_margin(margin), confidence, paired) for old, now in matched],
        missing=[m for key, m in bases.items() if key not in news],
        added=[m for key, m in news.items() if key not in bases],
        environment=_differences_of(matched),
        margin=checked_margin(margin),
        paired=paired,
        base=names[0],
        new=names[1],
        allow_missing=allow_missing,
    )


def _judge(base: Measurement, new: Measurement, margin: float, confidence: float, paired: bool) -> Pair:
    if base.samples is None or new.samples is None:
        outcome: Outcome = "broken" if base.samples is not None else "fixed" if new.samples is not None else "failing"
        return Pair(base, new, None, outcome)
    if len(base.samples) == len(new.samples) and bool(np.all(np.equal(base.samples, new.samples))):
        return Pair(base, new, intervals.Interval(1.0, 1.0, 1.0), "same")  # one measurement compared with itself
    ratio = _ratio(base.samples, new.samples, confidence, paired)
    crowding = worst(base.crowding, new.crowding)
    outcome = intervals.verdict(ratio, margin, crowding.slowdown if crowding else 1.0)
    if outcome != "inconclusive":
        return Pair(base, new, ratio, outcome)
    if crowding:
        return Pair(base, new, ratio, outcome, reason=str(crowding))
    needs_s = _seconds_to_decide(base, new, margin, confidence) if paired else None
    return Pair(base, new, ratio, outcome, needs_s=needs_s)


def _seconds_to_decide(base: Measurement, new: Measurement, margin: float, confidence: float) -> float | None:
    """Return how many seconds of rounds would probably decide a verdict; None if no number would, or it is unknown."""
    if isinstance(base.samples, Quartiles) or isinstance(new.samples, Quartiles) or not new.took_s:
        return None
    assert base.samples is not None
    assert new.samples is not None
    centre = intervals.ratio_location(base.samples, new.samples)
    needed = new.took_s * sample_size.growth_to_decide(centre, margin, confidence)
    return needed if math.isfinite(needed) else None


def _ratio(
    base: intervals.Samples | Quartiles, new: intervals.Samples | Quartiles, confidence: float, paired: bool
) -> intervals.Interval:
    if isinstance(base, Quartiles) or isinstance(new, Quartiles):
        return intervals.between(_location(base), _location(new), confidence)
    return (intervals.ratio_interval if paired else intervals.unpaired_ratio_interval)(base, new, confidence)


def _location(samples: intervals.Samples | Quartiles) -> intervals.Location:
    return intervals.quartile_location(*samples) if isinstance(samples, Quartiles) else intervals.location(samples)


def _differences_of(matched: Iterable[tuple[Measurement, Measurement]]) -> list[Difference]:
    found: dict[str, Difference] = {}
    for base, new in matched:
        for difference in differences(base.env, new.env):
            found.setdefault(str(difference), difference)
    return list(found.values())


def differences(base: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Difference]:
    """Yield what differs between two environments and affects speed, apart from the code under test."""
    old, now = _relevant(base), _relevant(new)
    for name in dict.fromkeys([*old, *now]):
        if old.get(name) != now.get(name):
            yield Difference(name, old.get(name), now.get(name))


def _relevant(env: Mapping[str, Any]) -> dict[str, Any]:
    versions = env.get("versions")
    versions = versions if isinstance(versions, Mapping) else {}
    return {name: env.get(name) for name in ENVIRONMENT} | {
        name: version for name, version in versions.items() if name != SUBJECT
    }
