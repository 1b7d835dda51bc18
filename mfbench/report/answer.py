"""The answer in a sentence: what is how much faster than what, on which machine, how sure, and whether all is right."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from mfbench.report.evidence import Entry, Evidence
from mfbench.report.labels import device_and_case, printable, short
from mfbench.results.comparison import Comparison
from mfbench.stats import intervals

VERDICTS = ("faster", "same", "inconclusive", "slower")


class Pooled(NamedTuple):
    """A provider's speed-up over a baseline in all cases that have one."""

    provider: str
    baseline: str
    entries: Sequence[Entry]
    ratio: intervals.Interval  # geometric mean of those that have an interval, if any
    bounded: int  # how many these are
    verdict: intervals.Verdict  # of the geometric mean
    verdicts: Counter[str]


def pooled(entries: Sequence[Entry]) -> list[Pooled]:
    """Every pair of provider and baseline, the one with the most cases first."""
    groups: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        record = entry.record
        if record and record.speedup and record.speedup.baseline != record.provider:
            groups.setdefault((record.provider, record.speedup.baseline), []).append(entry)
    found = [_pool(*names, group) for names, group in groups.items()]
    return sorted(found, key=lambda pool: -len(pool.entries))


def _pool(provider: str, baseline: str, entries: Sequence[Entry]) -> Pooled:
    """Half widths are averaged as if the errors of all cases were one: cases share the machine, and may share those."""
    speedups = [entry.record.speedup for entry in entries if entry.record and entry.record.speedup]
    bounded = [(s.ratio, *s.ci95) for s in speedups if all(s.ci95)]
    centre, low, high = (
        sum(map(math.log, column)) / len(bounded) for column in zip(*bounded, strict=True)
    ) if bounded else (sum(math.log(s.ratio) for s in speedups) / len(speedups), -math.inf, math.inf)  # fmt: skip
    ratio = intervals.Interval(*map(math.exp, (centre, low, high)))
    busy = any(entry.measurement.busy for entry in entries)
    verdict = intervals.verdict(ratio, max(s.margin for s in speedups), busy)
    return Pooled(provider, baseline, entries, ratio, len(bounded), verdict, Counter(s.verdict for s in speedups))


def sentence(evidence: Evidence) -> str:
    """The page's first sentence."""
    latest = [entry for entry in evidence.latest() if entry.measurement.status != "skipped"]
    if not latest:
        return _without_times(evidence)
    pools = pooled(latest)
    if not pools:
        return _without_speedups(latest)
    first = pools[0]
    where = f"on {machine([e.measurement.env for e in first.entries])}"
    link = "; " if _failed(latest) else ", and "
    return f"{claim(first)} {where}{link}{correctness(latest)}."


def claim(pool: Pooled) -> str:
    """How a provider compares with its baseline, and how sure that is."""
    provider, baseline = printable(short(pool.provider)), printable(short(pool.baseline))
    if pool.verdict == "faster":
        what = f"{provider} is {pool.ratio.estimate:.3g} times as fast as {baseline}"
    elif pool.verdict == "slower":
        what = f"{provider} takes {1 / pool.ratio.estimate:.3g} times as long as {baseline}"
    elif pool.verdict == "same":
        what = f"{provider} is as fast as {baseline}"
    else:
        what = f"Undecided: {provider} against {baseline}"
    return f"{what} ({_how_sure(pool)})"


def _how_sure(pool: Pooled) -> str:
    count = len(pool.entries)
    estimate, low, high = pool.ratio
    bounds = f"95 % interval {low:.3g} to {high:.3g}" if math.isfinite(high) else "too few rounds for an interval"
    if count == 1:
        measurement = pool.entries[0].measurement
        return f"ratio {estimate:.3g}, {bounds}; one case: {device_and_case(measurement.case, measurement.device)}"
    verdicts = ", ".join(f"{pool.verdicts[v]} {v}" for v in VERDICTS if pool.verdicts[v])
    cases = (
        f"{count} cases" if pool.bounded in (0, count) else f"the {pool.bounded} of {count} cases that have an interval"
    )
    return f"geometric mean {estimate:.3g} of {cases}, {bounds}; {verdicts}"


def correctness(entries: Sequence[Entry]) -> str:
    """How many results passed the gate."""
    gated = [entry for entry in entries if entry.record]
    failed = _failed(gated)
    if not failed:
        return f"all {len(gated)} results lie within the bounds of the correctness gate" if len(gated) > 1 else (
            "the result lies within the bounds of the correctness gate"
        )  # fmt: skip
    counts = Counter(entry.measurement.status for entry in failed)
    which = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    return f"{len(failed)} of {len(gated)} results failed ({which})"


def machine(environments: Sequence[Any]) -> str:
    """The machines of environments, the last one first."""
    found = list(dict.fromkeys(printable(_machine(env)) for env in reversed(environments)))
    return found[0] if len(found) == 1 else f"{found[0]} and {len(found) - 1} other machines or settings"


def _machine(env: Any) -> str:
    name = str(env.get("gpu") or env.get("cpu") or "an unknown machine")
    threads = env.get("threads")
    return f"{name}, {threads} thread{'s' if threads != 1 else ''}" if threads and not env.get("gpu") else name


def comparison_sentence(comparison: Comparison, base: str, new: str) -> str:
    """What came out of a comparison."""
    counts = Counter(pair.outcome for pair in comparison.pairs)
    if not counts:
        return f"{printable(new)} and {printable(base)} have no case in common."
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())
    return f"{printable(new)} against {printable(base)}, {len(comparison.pairs)} in common: {outcomes}."


def _failed(entries: Sequence[Entry]) -> list[Entry]:
    return [entry for entry in entries if entry.measurement.status not in ("ok", "skipped")]


def _without_times(evidence: Evidence) -> str:
    if not evidence.builds:
        return "Nothing was measured in these files."
    bad = sum(not build.ok for build in evidence.builds)
    verdict = f"{bad} of them spill or exceed a limit" if bad else "all of them within the limits"
    return f"Nothing was timed: these are the modelled resources of {len(evidence.builds)} compiled builds, {verdict}."


def _without_speedups(latest: Sequence[Entry]) -> str:
    where = machine([entry.measurement.env for entry in latest])
    if not any(entry.record for entry in latest):
        return (
            f"{len(latest)} benchmarks of pytest-benchmark on {where}: it checks no results and runs one test after "
            "another, so nothing here says that one is faster than another."
        )
    timed = sum(entry.measurement.status == "ok" for entry in latest)
    return f"No speed-up was measured on {where}: {timed} of {len(latest)} results were timed; {correctness(latest)}."
