"""Formats that other tools read: CSV, and the JSON of services that track benchmarks over time."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from mfbench.problems.cases import Case
from mfbench.report import frames
from mfbench.report.evidence import Evidence, RunResult
from mfbench.report.labels import case_labels, full_name, printable
from mfbench.results.comparison import Quartiles
from mfbench.stats import intervals

NANOSECONDS = 1e9  # per second; the unit of Bencher's measure "latency"


def as_csv(evidence: Evidence) -> str:
    """Return one line for each measurement, with the columns of `Results.to_pandas`."""
    rows = frames.rows(evidence.results)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(column for row in rows for column in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_github_action(evidence: Evidence) -> str:
    """Return the newest medians for github-action-benchmark, with its tool `customSmallerIsBetter`."""
    return _json([
        {
            "name": name,
            "unit": "ns",
            "value": median.estimate * NANOSECONDS,
            **({"range": f"± {(median.high - median.low) / 2 * NANOSECONDS:.3g}"} if np.isfinite(median.high) else {}),
            "extra": full_name(*result.place),
        }
        for name, result, median in _timed(evidence)
    ])  # fmt: skip


def as_bencher(evidence: Evidence) -> str:
    """Return the newest medians in Bencher's metric format: latency in ns, throughput in ratings per second."""
    return _json({name: _metrics(result, median) for name, result, median in _timed(evidence)})


def _metrics(result: RunResult, median: intervals.Interval) -> dict[str, dict[str, float]]:
    metrics = {"latency": _metric(*(value * NANOSECONDS for value in median))}
    case = result.measurement.case
    if isinstance(case, Case) and (ratings := case.m * case.n):
        metrics["throughput"] = _metric(
            *(ratings / end if end else np.inf for end in (median[0], median[2], median[1]))
        )
    return metrics


def _metric(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, **({"lower_value": low, "upper_value": high} if np.isfinite([low, high]).all() else {})}


def as_pytorch(evidence: Evidence) -> str:
    """Return the newest samples for the PyTorch OSS benchmark database, one record for each metric."""
    return _json([record for name, result, _ in _timed(evidence) for record in _pytorch_records(name, result)])


def _pytorch_records(name: str, result: RunResult) -> Iterator[dict[str, Any]]:
    m, record = result.measurement, result.record
    samples = [m.samples.median] if isinstance(m.samples, Quartiles) else np.asarray(m.samples).tolist()
    metrics: dict[str, Sequence[float]] = {"latency_s": samples}
    if record and record.speedup and record.speedup.baseline != record.provider:
        metrics["speedup"] = [record.speedup.ratio]
    if record and record.peak_bytes is not None:
        metrics["peak_bytes"] = [float(record.peak_bytes)]
    case = m.case.model_dump(mode="json") if isinstance(m.case, Case) else {"case": m.case}
    for metric, values in metrics.items():
        yield {
            "benchmark": {"name": m.tool, "extra_info": {"device": m.device, "run": result.run, "env": dict(m.env)}},
            "model": {"name": m.provider, "type": "kernel"},
            "metric": {"name": metric, "benchmark_values": values, "extra_info": {"benchmark": name}},
            "shape": case,
        }


def _timed(evidence: Evidence) -> Iterator[tuple[str, RunResult, intervals.Interval]]:
    """Yield the newest results that have times, with a short unique name and the median in seconds."""
    latest = [result for result in evidence.latest() if result.measurement.samples is not None]
    labels = case_labels(result.place for result in latest)
    for result in latest:
        yield f"{labels[result.place]}/{printable(result.measurement.provider)}", result, _median(result)


def _median(result: RunResult) -> intervals.Interval:
    samples = result.measurement.samples
    if isinstance(samples, Quartiles):
        return intervals.location_interval(intervals.quartile_location(*samples))
    return intervals.median_interval(np.asarray(samples))


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


EXPORTS: dict[str, Callable[[Evidence], str]] = {
    "csv": as_csv,
    "github-action-benchmark": as_github_action,
    "bencher": as_bencher,
    "pytorch-oss": as_pytorch,
}
