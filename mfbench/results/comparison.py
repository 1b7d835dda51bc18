"""Two measurements of the same cases held against each other: a verdict per case, and one for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from mfbench.problems.cases import Case
from mfbench.results.records import Record
from mfbench.stats import intervals

ENVIRONMENT = ("cpu", "cpus", "gpu", "driver", "system", "threads")  # beside the versions of what is installed
SUBJECT = "mfbench"  # its version is what a comparison may be about

Outcome = Literal["faster", "slower", "same", "inconclusive", "broken", "mended", "failing"]
REGRESSIONS = ("slower", "broken")


class Quartiles(NamedTuple):
    """What is left of samples where only their summary was kept, seconds."""

    median: float
    interquartile_range: float
    rounds: int


class Measurement(NamedTuple):
    """What one side knows of a provider on a case."""

    case: Case | str
    provider: str
    device: str
    status: str  # as in a record
    reason: str | None
    samples: intervals.Samples | Quartiles | None  # seconds, in the order in which they were taken; None: not ok
    env: Mapping[str, Any]
    busy: bool = False  # other programs ran while it was timed

    @property
    def key(self) -> tuple[Case | str, str, str]:
        return self.case, self.provider, self.device

    @property
    def label(self) -> str:
        """The case in words."""
        name = self.case.label if isinstance(self.case, Case) else self.case
        return " · ".join(part for part in (name, self.device) if part)

    @property
    def usable(self) -> bool:
        """Not `ok`, or with positive times."""
        if self.status != "ok" or not isinstance(self.samples, np.ndarray):
            return self.status != "ok" or self.samples is not None
        return self.samples.size > 0 and bool(np.isfinite(self.samples).all() and (self.samples > 0).all())

    @property
    def median_s(self) -> float | None:
        if self.samples is None:
            return None
        return self.samples.median if isinstance(self.samples, Quartiles) else float(np.median(self.samples))


class Pair(NamedTuple):
    """A case that both sides have. `broken`: ok before, failing now; `mended`: the other way round; `failing`: both."""

    base: Measurement
    new: Measurement
    ratio: intervals.Interval | None  # base / new: how many times as fast the new side is
    outcome: Outcome


class Difference(NamedTuple):
    """A part of the environment that was another on the two sides."""

    name: str
    base: Any
    new: Any


class Comparison(NamedTuple):
    """Matched cases only; what one side alone has is listed."""

    pairs: Sequence[Pair]
    missing: Sequence[Measurement]  # on the base's side alone
    added: Sequence[Measurement]  # on the new side alone
    environment: Sequence[Difference]
    margin: float
    paired: bool

    @property
    def timed(self) -> int:
        """The size of the family: pairs that have times on both sides."""
        return sum(pair.ratio is not None for pair in self.pairs)

    @property
    def exit_code(self) -> int:
        """0 no regression; 1 regression; 3 some case is undecided; 4 nothing to compare."""
        outcomes = {pair.outcome for pair in self.pairs}
        if outcomes.intersection(REGRESSIONS):
            return 1
        if outcomes <= {"failing"}:
            return 4
        return 3 if "inconclusive" in outcomes else 0


def measurement(record: Record) -> Measurement:
    """A record as one side of a comparison."""
    timing = record.timing if record.status == "ok" else None
    samples = None if timing is None else np.array(timing.samples_s)
    busy = timing is not None and timing.busy
    return Measurement(
        record.case, record.provider, record.device, record.status, record.reason, samples, record.env, busy
    )


def compare(base: Iterable[Measurement], new: Iterable[Measurement], margin: float, paired: bool = False) -> Comparison:
    """Match by case, provider and device, and judge every match.

    The intervals hold together: with N timed pairs each has the confidence 1 - 0.05 / N (Bonferroni), so that with a
    probability of 95 % not one of the verdicts of the whole comparison is wrong on account of noise within the runs.
    Holm's procedure would find a little more, but gives no intervals: what is printed would not be what was decided,
    and `same`, which is decided by the interval too, would not be covered. Bonferroni needs no independence, and the
    cases of a run are not independent: they share the machine.

    Args:
        base, new: where one side has a key twice, the later counts; what was skipped counts as not there.
        margin: relative change up to which two times are the same.
        paired: the samples of a pair come from the same rounds of one run.
    """
    bases, news = ({m.key: m for m in side if m.status != "skipped"} for side in (base, new))
    matched = [(bases[key], news[key]) for key in bases if key in news]
    timed = sum(old.samples is not None and now.samples is not None for old, now in matched)
    confidence = intervals.family_confidence(timed)
    return Comparison(
        pairs=[_judge(old, now, margin, confidence, paired) for old, now in matched],
        missing=[m for key, m in bases.items() if key not in news],
        added=[m for key, m in news.items() if key not in bases],
        environment=_differences_of(matched),
        margin=margin,
        paired=paired,
    )


def _judge(base: Measurement, new: Measurement, margin: float, confidence: float, paired: bool) -> Pair:
    if base.samples is None or new.samples is None:
        outcome: Outcome = "broken" if base.samples is not None else "mended" if new.samples is not None else "failing"
        return Pair(base, new, None, outcome)
    if len(base.samples) == len(new.samples) and bool(np.all(np.equal(base.samples, new.samples))):
        return Pair(base, new, intervals.Interval(1.0, 1.0, 1.0), "same")  # one measurement: nothing has to be inferred
    ratio = _ratio(base.samples, new.samples, confidence, paired)
    return Pair(base, new, ratio, intervals.verdict(ratio, margin, base.busy or new.busy))


def _ratio(
    base: intervals.Samples | Quartiles, new: intervals.Samples | Quartiles, confidence: float, paired: bool
) -> intervals.Interval:
    if isinstance(base, Quartiles) or isinstance(new, Quartiles):
        return intervals.between(_location(base), _location(new), confidence)
    return (intervals.ratio_interval if paired else intervals.unpaired_ratio_interval)(base, new, confidence)


def _location(samples: intervals.Samples | Quartiles) -> intervals.Location:
    return intervals.quartile_location(*samples) if isinstance(samples, Quartiles) else intervals.location(samples)


def _differences_of(matched: Iterable[tuple[Measurement, Measurement]]) -> list[Difference]:
    found: dict[tuple[str, str, str], Difference] = {}
    for base, new in matched:
        for difference in differences(base.env, new.env):
            found.setdefault((difference.name, str(difference.base), str(difference.new)), difference)
    return list(found.values())


def differences(base: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Difference]:
    """What decides about speed beside the code, and was another on the two sides."""
    old, now = _deciding(base), _deciding(new)
    for name in dict.fromkeys([*old, *now]):
        if old.get(name) != now.get(name):
            yield Difference(name, old.get(name), now.get(name))


def _deciding(env: Mapping[str, Any]) -> dict[str, Any]:
    versions = env.get("versions")
    versions = versions if isinstance(versions, Mapping) else {}
    return {name: env.get(name) for name in ENVIRONMENT} | {
        name: version for name, version in versions.items() if name != SUBJECT
    }
