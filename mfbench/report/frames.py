"""Measurements as data frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas

from mfbench.problems.cases import Case
from mfbench.report.evidence import Entry
from mfbench.report.terminal import error_over_bound, gemm_fraction
from mfbench.results.comparison import Comparison, Measurement


def measurements(entries: Sequence[Entry]) -> pandas.DataFrame:
    """A row a measurement."""
    return pandas.DataFrame([_measurement(entry) for entry in entries])


def _measurement(entry: Entry) -> dict[str, Any]:
    m, record = entry.measurement, entry.record
    row = {"run": entry.run, "time": entry.time, **_named(m), "status": m.status, "reason": m.reason,
           "median_s": m.median_s}  # fmt: skip
    timing, speedup = (record.timing, record.speedup) if record else (None, None)
    low, high = timing.ci95_s if timing else (None, None)
    ratio_low, ratio_high = speedup.ci95 if speedup else (None, None)
    return row | {
        "median_low_s": low,
        "median_high_s": high,
        "rounds": timing.rounds if timing else None,
        "baseline": speedup.baseline if speedup else None,
        "speedup": speedup.ratio if speedup else None,
        "speedup_low": ratio_low,
        "speedup_high": ratio_high,
        "verdict": speedup.verdict if speedup else None,
        "error_over_bound": error_over_bound(record) if record else None,
        "peak_bytes": record.peak_bytes if record else None,
        "gemm_fraction": gemm_fraction(record) if record else None,
        "floor_fraction": record.roofline.fraction if record and record.roofline else None,
    }


def pairs(comparison: Comparison) -> pandas.DataFrame:
    """A row a pair."""
    return pandas.DataFrame([
        {
            **_named(pair.new),
            "base_median_s": pair.base.median_s,
            "new_median_s": pair.new.median_s,
            "ratio": pair.ratio.estimate if pair.ratio else None,
            "ratio_low": pair.ratio.low if pair.ratio else None,
            "ratio_high": pair.ratio.high if pair.ratio else None,
            "outcome": pair.outcome,
        }
        for pair in comparison.pairs
    ])  # fmt: skip


def _named(m: Measurement) -> dict[str, Any]:
    case = m.case.model_dump() if isinstance(m.case, Case) else {"case": m.case}
    return {**case, "provider": m.provider, "device": m.device}
