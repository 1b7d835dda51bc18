"""Turn what was measured into records: first their fields as plain values, which need no package to be written."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from mfbench.correctness.gate import OutputCheck
from mfbench.measure import roofline
from mfbench.measure.rounds import CaseTiming
from mfbench.results import environment
from mfbench.results.codes import Code
from mfbench.results.crowding import crowding
from mfbench.stats import intervals, sample_size

if TYPE_CHECKING:
    from mfbench.problems.cases import Case
    from mfbench.results.records import Record

Fields = dict[str, Any]  # of a record, or of a part of it, as JSON holds them

MAX_REASON_LENGTH = 1000  # characters
METHOD = "own process, interleaved rounds in random order, data moved in memory between placements"


class Origin(NamedTuple):
    """What all records of a case share."""

    run_id: str
    case: Case
    device: str
    sources: Mapping[str, str | None] = MappingProxyType({})  # digest of each provider's file when it was loaded

    def success(self, provider: str, ran_with: Mapping[str, Any] = MappingProxyType({}), **parts: Any) -> Record:
        """Return the record of a provider that passed and was timed.

        Args:
            ran_with: settings of the provider's own process, for the record's `env`.
        """
        return _record(self.fields(provider, ran_with, status="ok", **parts))

    def failure(self, provider: str, code: Code, reason: str, correctness: Fields | None = None) -> Record:
        """Return the record of a provider that has no timing, and why."""
        return _record(self.failure_fields(provider, code, reason, correctness))

    def failure_fields(self, provider: str, code: Code, reason: str, correctness: Fields | None = None) -> Fields:
        """Return the fields of the record of a provider that has no timing, and why."""
        return self.fields(
            provider, status=code.status, code=code.value, reason=_printable(reason), correctness=correctness
        )

    def fields(self, provider: str, ran_with: Mapping[str, Any] = MappingProxyType({}), **measured: Any) -> Fields:
        """Return the fields of a record: what was measured, and what all records have."""
        return {
            "run_id": self.run_id,
            "time": datetime.datetime.now(datetime.timezone.utc).isoformat(),
            "case": self.case,
            "provider": provider,
            "device": self.device,
            "env": {**environment.describe(self.device), "source": self.sources.get(provider), **ran_with},
            **measured,
        }


def _record(fields: Fields) -> Record:
    from mfbench.results.records import Record  # here, as Pydantic may be missing where `gpu-check` runs

    return Record(**fields)


def correctness(checks: Mapping[str, OutputCheck]) -> Fields:
    """Return the gate's checks as a record holds them."""
    return {
        name: {
            "error": finite(check.error),
            "bound": check.bound,
            "rms_error": finite(check.rms_error),
            "rms_bound": check.rms_bound,
            "ok": check.ok,
        }
        for name, check in checks.items()
    }


def method(gaps: bool, device: str) -> str:
    """Describe how samples were taken.

    Args:
        gaps: some may contain gaps between launches.
        device: "cpu" or "cuda".
    """
    if device == "cpu":
        return f"perf_counter, {METHOD}"
    launches = "launch gaps included" if gaps else "stream blocked until all was enqueued"
    return f"device events, {launches}, {METHOD}"


def timed(
    origin: Origin,
    provider: str,
    timing: CaseTiming,
    baseline: str | None,
    margin: float,
    family: int,
    ceilings: roofline.Ceilings | None,
    observed: int,
) -> Fields:
    """Return the fields of a record that come from timing.

    Args:
        origin: of the case.
        provider: one of those timed.
        timing: of all providers.
        baseline: that the speed-up is against; None for no speed-up.
        margin: of the verdict.
        family: comparisons in the run; the verdict uses a confidence of 1 - 0.05 / family (Bonferroni; see
            docs/decisions/0002-bonferroni.md).
        ceilings: of the machine; None: the record has no roofline.
        observed: number of observed ratings.
    """
    case, own = origin.case, timing.providers[provider]
    median = intervals.median_interval(own.samples)
    work = roofline.work(case)
    load_known = origin.device == "cpu"
    cores = timing.background_cores
    disturbed = timing.disturbed if load_known else None
    foreign = float(cores.mean()) if load_known and cores.size else None
    fields: Fields = {
        "timing": {
            "samples_s": own.samples.tolist(),
            "median_s": median.estimate,
            "ci95_s": (finite(median.low), finite(median.high)),
            "rounds": len(own.samples),
            "loops": own.loops,
            "method": method(own.gaps, origin.device),
            "cold_cache": own.cold,
            "placements": timing.placements,
            "throttled": timing.throttled,
            "disturbed": disturbed,
            "dropped": timing.dropped,
            "foreign_cores": foreign,
            "resolve": timing.resolve,
            "planned_s": timing.planned_s,
            "took_s": timing.took_s,
        },
        "rates": {
            "ratings_per_s": (observed if case.sparse else case.m * case.n) / median.estimate,
            "flops_per_s": work.flops / median.estimate,
            "bytes_per_s": work.bytes / median.estimate,
        },
    }
    if ceilings is not None:
        floor = roofline.floor(case, observed, ceilings)
        fields["roofline"] = {
            "bound": floor.bound,
            "fraction": floor.seconds / median.estimate,
            "gemm_flops_per_s": ceilings.gemm_flops_per_s,
            "peak_flops_per_s": ceilings.peak_flops_per_s,
            "copy_bytes_per_s": ceilings.copy_bytes_per_s,
        }
    if baseline is not None:
        pair = timing.providers[baseline].samples, own.samples
        ratio, confidence = intervals.ratio_interval(*pair), intervals.family_confidence(family)
        simultaneous = intervals.ratio_interval(*pair, confidence=confidence)
        crowd = crowding(len(own.samples), disturbed, foreign, environment.describe(origin.device))
        slowdown = crowd.slowdown if crowd else 1.0
        verdict = "same" if provider == baseline else intervals.verdict(simultaneous, margin, slowdown)
        needs_s = reason = None
        if verdict == "inconclusive" and crowd:
            reason = str(crowd)
        elif verdict == "inconclusive":
            growth = sample_size.growth_to_decide(intervals.ratio_location(*pair), margin, confidence)
            needs_s = finite(timing.took_s * growth)
        fields["speedup"] = {
            "baseline": baseline,
            "ratio": ratio.estimate,
            "ci95": (finite(ratio.low), finite(ratio.high)),
            "margin": margin,
            "verdict": verdict,
            "family": family,
            "needs_s": needs_s,
            "reason": reason,
        }
    return fields


def _printable(text: str) -> str:
    """Return a provider's message as valid UTF-8, truncated."""
    text = text.encode("utf-8", errors="replace").decode()
    return text if len(text) <= MAX_REASON_LENGTH else f"{text[:MAX_REASON_LENGTH]}…"


def finite(value: float | None) -> float | None:
    """Replace NaN and infinity by None; JSON has neither."""
    return value if value is not None and math.isfinite(value) else None
