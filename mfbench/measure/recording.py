"""From what was found to a record."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from mfbench.correctness import gate
from mfbench.measure import roofline
from mfbench.measure.rounds import Timing as Rounds
from mfbench.problems.cases import Case
from mfbench.results import environment
from mfbench.results.records import Correctness, Rates, Record, Roofline, Speedup, Status, Timing
from mfbench.stats import intervals

REASON_LENGTH = 1000
METHOD = "own process, interleaved rounds in random order, data moved in memory between placements"


class Origin(NamedTuple):
    """What all records of a case share."""

    run_id: str
    case: Case
    device: str
    sources: Mapping[str, str | None] = MappingProxyType({})  # digests of the providers' files, as they were loaded

    def record(self, provider: str, status: Status, reason: str | None = None, **parts: Any) -> Record:
        return Record(
            run_id=self.run_id,
            time=datetime.datetime.now(datetime.timezone.utc).isoformat(),
            case=self.case,
            provider=provider,
            device=self.device,
            status=status,
            reason=None if reason is None else _printable(reason),
            env=environment.describe(self.device) | {"source": self.sources.get(provider)},
            **parts,
        )


def correctness(verdicts: dict[str, gate.Correctness]) -> dict[str, Correctness]:
    """The gate's verdicts as they stand in a record."""
    return {
        name: Correctness(
            error=finite(verdict.error),
            bound=verdict.bound,
            rms_error=finite(verdict.rms_error),
            rms_bound=verdict.rms_bound,
            ok=verdict.ok,
        )
        for name, verdict in verdicts.items()
    }


def method(rounds: Rounds, provider: str, device: str) -> str:
    """How the samples came about, in words."""
    if device == "cpu":
        return f"perf_counter, {METHOD}"
    launches = "launch gaps included" if rounds.gaps[provider] else "stream blocked until all was enqueued"
    return f"device events, {launches}, {METHOD}"


def timed(
    origin: Origin,
    provider: str,
    rounds: Rounds,
    baseline: str | None,
    margin: float,
    family: int,
    ceilings: roofline.Ceilings,
    observed: int,
) -> dict[str, Any]:
    """The parts of a record that come from timing.

    There is a ratio where there is a baseline. The verdict is by an interval of confidence 1 - 0.05 / `family`
    (Bonferroni; `compare` says why not Holm).
    """
    case = origin.case
    seconds = rounds.samples[provider]
    median = intervals.median_interval(seconds)
    work, floor = roofline.work(case), roofline.floor(case, observed, ceilings)
    watched = origin.device == "cpu"  # whether other programs were looked for
    timing = Timing(
        samples_s=seconds.tolist(),
        median_s=median.estimate,
        ci95_s=(finite(median.low), finite(median.high)),
        rounds=len(seconds),
        loops=rounds.loops[provider],
        method=method(rounds, provider, origin.device),
        cold_cache=rounds.cold[provider],
        placements=rounds.placements,
        throttled=rounds.throttled,
        disturbed=rounds.disturbed if watched else None,
        dropped=rounds.dropped,
        foreign_cores=float(rounds.foreign.mean()) if watched and rounds.foreign.size else None,
    )
    parts: dict[str, Any] = {
        "timing": timing,
        "rates": Rates(
            ratings_per_s=case.m * case.n / median.estimate,
            flops_per_s=work.flops / median.estimate,
            bytes_per_s=work.bytes / median.estimate,
        ),
        "roofline": Roofline(
            bound=floor.bound,
            fraction=floor.seconds / median.estimate,
            gemm_flops_per_s=ceilings.gemm_flops_per_s,
            peak_flops_per_s=ceilings.peak_flops_per_s,
            copy_bytes_per_s=ceilings.copy_bytes_per_s,
        ),
    }
    if baseline is not None:
        pair = rounds.samples[baseline], seconds
        ratio = intervals.ratio_interval(*pair)
        together = intervals.ratio_interval(*pair, confidence=intervals.family_confidence(family))
        parts["speedup"] = Speedup(
            baseline=baseline,
            ratio=ratio.estimate,
            ci95=(finite(ratio.low), finite(ratio.high)),
            margin=margin,
            verdict="same" if provider == baseline else intervals.verdict(together, margin, timing.busy),
            family=family,
        )
    return parts


def _printable(text: str) -> str:
    """What a provider said, cut short, as text that can be written."""
    text = text.encode("utf-8", errors="replace").decode()
    return text if len(text) <= REASON_LENGTH else f"{text[:REASON_LENGTH]}…"


def finite(value: float | None) -> float | None:
    """JSON has no infinity."""
    return value if value is not None and math.isfinite(value) else None
