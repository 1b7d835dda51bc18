"""Measurements as flat rows and as data frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mfbench.problems.cases import Case
from mfbench.report.derived import error_over_bound, gemm_fraction, verdict
from mfbench.report.evidence import RunResult
from mfbench.results.comparison import Comparison, Measurement

if TYPE_CHECKING:
    import pandas


def rows(results: Sequence[RunResult]) -> list[dict[str, Any]]:
    """Return one row for each measurement; times are in seconds, memory in bytes."""
    return [_row(result) for result in results]


def measurements(results: Sequence[RunResult]) -> pandas.DataFrame:
    """Return `rows` as a data frame."""
    import pandas

    return pandas.DataFrame(rows(results))


def _row(result: RunResult) -> dict[str, Any]:
    m, record = result.measurement, result.record
    timing, speedup = (record.timing, record.speedup) if record else (None, None)
    low, high = timing.ci95_s if timing else (None, None)
    ratio_low, ratio_high = speedup.ci95 if speedup else (None, None)
    group, scaling = (record.group, record.scaling) if record else (None, None)
    efficiency_low, efficiency_high = scaling.efficiency_ci95 if scaling else (None, None)
    return {
        "run": result.run,
        "time": result.time,
        **_named(m),
        "status": m.status,
        "reason": m.reason or (speedup.reason if speedup else None),
        "median_s": m.median_s,
        "median_low_s": low,
        "median_high_s": high,
        "rounds": timing.rounds if timing else None,
        "baseline": speedup.baseline if speedup else None,
        "speedup": speedup.ratio if speedup else None,
        "speedup_low": ratio_low,
        "speedup_high": ratio_high,
        "verdict": verdict(record) if record else None,
        "error_over_bound": error_over_bound(record) if record else None,
        "peak_bytes": record.peak_bytes if record else None,
        "gemm_fraction": gemm_fraction(record) if record else None,
        "floor_fraction": record.roofline.fraction if record and record.roofline else None,
        "computing_s": group.computing_s if group else None,
        "communicating_s": group.communicating_s if group else None,
        "predicted_s": group.predicted_s if group else None,
        "scaling": scaling.kind if scaling else None,
        "efficiency": scaling.efficiency if scaling else None,
        "efficiency_low": efficiency_low,
        "efficiency_high": efficiency_high,
    }


def pairs(comparison: Comparison) -> pandas.DataFrame:
    """Return one row for each pair of a comparison."""
    import pandas

    return pandas.DataFrame([
        {
            **_named(pair.new),
            "base_median_s": pair.base.median_s,
            "new_median_s": pair.new.median_s,
            "ratio": pair.ratio.estimate if pair.ratio else None,
            "ratio_low": pair.ratio.low if pair.ratio else None,
            "ratio_high": pair.ratio.high if pair.ratio else None,
            "outcome": pair.outcome,
            "reason": pair.new.reason or pair.base.reason or pair.reason,
        }
        for pair in comparison.pairs
    ])  # fmt: skip


def _named(m: Measurement) -> dict[str, Any]:
    case = m.case.model_dump() if isinstance(m.case, Case) else {"case": m.case}
    return {**case, "provider": m.provider, "device": m.device}
