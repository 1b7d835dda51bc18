"""The headline: what is how much faster than what, on which machine, how certain, and whether it is correct."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from mfbench.report.evidence import Evidence, RunResult
from mfbench.report.labels import full_name, printable, short
from mfbench.results.comparison import OUTCOMES, Comparison
from mfbench.results.crowding import worst
from mfbench.stats import intervals

VERDICTS = ("faster", "same", "inconclusive", "slower")


class Pooled(NamedTuple):
    """The speed-up of a provider over a baseline, pooled over cases."""

    provider: str
    baseline: str
    results: Sequence[RunResult]
    ratio: intervals.Interval  # geometric mean of the ratios that have an interval, if any
    bounded: int  # number of those
    verdict: intervals.Verdict  # on the geometric mean
    verdicts: Counter[str]  # of the cases
    reason: str | None  # why the verdict is inconclusive, if not for noise


def pooled(results: Sequence[RunResult]) -> list[Pooled]:
    """Pool each pair of provider and baseline; the pair with the most cases comes first."""
    groups: dict[tuple[str, str], list[RunResult]] = {}
    for result in results:
        record = result.record
        if record and record.speedup and record.speedup.baseline != record.provider:
            groups.setdefault((record.provider, record.speedup.baseline), []).append(result)
    found = [_pool(*names, group) for names, group in groups.items()]
    return sorted(found, key=lambda pool: -len(pool.results))


def _pool(provider: str, baseline: str, results: Sequence[RunResult]) -> Pooled:
    """Average the half widths as if the errors of all cases were fully correlated: cases share the machine."""
    speedups = [result.record.speedup for result in results if result.record and result.record.speedup]
    bounded = [(s.ratio, *s.ci95) for s in speedups if all(s.ci95)]
    centre, low, high = (
        sum(map(math.log, column)) / len(bounded) for column in zip(*bounded, strict=True)
    ) if bounded else (sum(math.log(s.ratio) for s in speedups) / len(speedups), -math.inf, math.inf)  # fmt: skip
    ratio = intervals.Interval(*map(math.exp, (centre, low, high)))
    crowding = worst(*(result.measurement.crowding for result in results))
    verdict = intervals.verdict(ratio, max(s.margin for s in speedups), crowding.slowdown if crowding else 1.0)
    reason = str(crowding) if crowding and verdict == "inconclusive" else None
    verdicts: Counter[str] = Counter(s.verdict for s in speedups)
    return Pooled(provider, baseline, results, ratio, len(bounded), verdict, verdicts, reason)


def sentence(evidence: Evidence) -> str:
    """Return the first sentence of the page."""
    latest = [result for result in evidence.latest() if result.measurement.status != "skipped"]
    if not latest:
        return _without_times(evidence)
    pools = pooled(latest)
    if not pools:
        return _without_speedups(latest)
    first = pools[0]
    where = f"on {machine([r.measurement.env for r in first.results])}"
    link = "; " if _failed(latest) else ", and "
    return f"{claim(first)} {where}{link}{correctness(latest)}."


def claim(pool: Pooled) -> str:
    """Return how a provider compares with its baseline, and how certain that is."""
    provider, baseline = printable(short(pool.provider)), printable(short(pool.baseline))
    if pool.verdict == "faster":
        what = f"{provider} is {pool.ratio.estimate:.3g} times as fast as {baseline}"
    elif pool.verdict == "slower":
        what = f"{provider} takes {1 / pool.ratio.estimate:.3g} times as long as {baseline}"
    elif pool.verdict == "same":
        what = f"{provider} is as fast as {baseline}"
    else:
        what = f"Undecided: {provider} against {baseline}"
    return f"{what} ({_certainty(pool)}{f'; {pool.reason}' if pool.reason else ''})"


def _certainty(pool: Pooled) -> str:
    count = len(pool.results)
    estimate, low, high = pool.ratio
    bounds = f"95 % interval {low:.3g} to {high:.3g}" if math.isfinite(high) else "too few rounds for an interval"
    if count == 1:
        return f"ratio {estimate:.3g}, {bounds}; one case: {full_name(*pool.results[0].place)}"
    verdicts = ", ".join(f"{pool.verdicts[v]} {v}" for v in VERDICTS if pool.verdicts[v])
    cases = (
        f"{count} cases" if pool.bounded in (0, count) else f"the {pool.bounded} of {count} cases that have an interval"
    )
    return f"geometric mean {estimate:.3g} of {cases}, {bounds}; {verdicts}"


def correctness(results: Sequence[RunResult]) -> str:
    """Return how many results passed the gate."""
    gated = [result for result in results if result.record]
    failed = _failed(gated)
    if not failed:
        return f"all {len(gated)} results lie within the bounds of the correctness gate" if len(gated) > 1 else (
            "the result lies within the bounds of the correctness gate"
        )  # fmt: skip
    counts = Counter(result.measurement.status for result in failed)
    which = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    return f"{len(failed)} of {len(gated)} results failed ({which})"


def machine(environments: Sequence[Any]) -> str:
    """Return the machines of the environments, the newest first."""
    found = list(dict.fromkeys(printable(_machine(env)) for env in reversed(environments)))
    return found[0] if len(found) == 1 else f"{found[0]} and {len(found) - 1} other machines or settings"


def _machine(env: Any) -> str:
    name = str(env.get("gpu") or env.get("cpu") or "an unknown machine")
    threads = env.get("threads")
    return f"{name}, {threads} thread{'s' if threads != 1 else ''}" if threads and not env.get("gpu") else name


def comparison_sentence(comparison: Comparison) -> str:
    """Return the number of cases with each outcome."""
    base, new = printable(comparison.base), printable(comparison.new)
    counts = Counter(pair.outcome for pair in comparison.pairs)
    if not counts:
        return f"{new} and {base} have no case in common."
    outcomes = ", ".join(f"{count} {OUTCOMES[outcome]}" for outcome, count in counts.most_common())
    lost = f"; {len(comparison.missing)} missing from {new}" if comparison.missing else ""
    return f"{new} against {base}, {len(comparison.pairs)} in common: {outcomes}{lost}."


def _failed(results: Sequence[RunResult]) -> list[RunResult]:
    return [result for result in results if result.measurement.status not in ("ok", "skipped")]


def _without_times(evidence: Evidence) -> str:
    if not evidence.builds:
        return "Nothing was measured in these files."
    bad = sum(not build.ok for build in evidence.builds)
    verdict = f"{bad} of them spill or exceed a limit" if bad else "all of them within the limits"
    return f"Nothing was timed: these are the modelled resources of {len(evidence.builds)} compiled builds, {verdict}."


def _without_speedups(latest: Sequence[RunResult]) -> str:
    where = machine([result.measurement.env for result in latest])
    if not any(result.record for result in latest):
        tools = " and ".join(sorted({result.measurement.tool for result in latest}))
        return (
            f"{len(latest)} benchmarks of {tools} on {where}, without a check of correctness and measured one after "
            "another, so nothing here says that one is faster than another."
        )
    timed = sum(result.measurement.status == "ok" for result in latest)
    return f"No speed-up was measured on {where}: {timed} of {len(latest)} results were timed; {correctness(latest)}."
