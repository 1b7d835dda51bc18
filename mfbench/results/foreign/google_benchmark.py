"""Google Benchmark: the files of `--benchmark_out` with `--benchmark_out_format=json`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from mfbench.results.comparison import Quartiles
from mfbench.results.foreign.results import Part, ToolResults, entries_of, mapping_of, normal_quartiles

NAME = "google-benchmark"
SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}
SUMMARY = ("median", "stddev")  # the aggregates that are used where the repetitions were not written
AGGREGATES = ("mean", *SUMMARY)  # all that a file of before version 1.5 holds


class _Row(Part):
    """A repetition or an aggregate. A run that failed has times of 0.0 beside its error."""

    name: str
    run_name: str = ""
    run_type: Literal["iteration", "aggregate"] = "iteration"
    repetitions: int = 1
    aggregate_name: str = ""
    real_time: float = 0.0
    time_unit: Literal["ns", "us", "ms", "s"] = "ns"
    error_occurred: bool = False
    error_message: str = ""
    skipped: bool = False
    skip_message: str = ""


def recognises(document: dict[str, Any]) -> bool:
    """Return whether Google Benchmark wrote this document."""
    return "benchmarks" in document and "context" in document


def read(path: Path, document: dict[str, Any]) -> ToolResults:
    """Read the benchmarks of a document: the wall-clock time of each repetition, or else median and deviation."""
    context = mapping_of(document, "context")
    results = ToolResults(path, NAME, _environment(context), str(context.get("date") or ""))
    benchmarks: dict[str, list[_Row]] = {}
    for row in _typed(list(results.valid(_Row, entries_of(document, "benchmarks")))):
        benchmarks.setdefault(row.run_name or row.name, []).append(row)
    for name, rows in benchmarks.items():
        family = name.partition("/")[0]
        failed = next((row for row in rows if row.error_occurred or row.skipped), None)
        if failed is None:
            results.add(family, name, _samples(rows))
        elif failed.error_occurred:
            results.add_failure(family, name, "error", failed.error_message or "no message")
        else:
            results.add_failure(family, name, "skipped", failed.skip_message or "no message")
    return results


def _typed(rows: Sequence[_Row]) -> Iterator[_Row]:
    """Yield rows with their types, which files of before version 1.5 lack: there the names tell aggregates."""
    names = {row.name for row in rows}
    for row in rows:
        run, _, aggregate = row.name.rpartition("_")
        untyped = "run_type" not in row.model_fields_set and aggregate in AGGREGATES
        if untyped and names.issuperset(f"{run}_{name}" for name in AGGREGATES):
            yield row.model_copy(update={"run_type": "aggregate", "run_name": run, "aggregate_name": aggregate})
        else:
            yield row


def _samples(rows: list[_Row]) -> list[float] | Quartiles:
    times = [row.real_time * SECONDS[row.time_unit] for row in rows if row.run_type == "iteration"]
    summary = {row.aggregate_name: row for row in rows if row.aggregate_name in SUMMARY}
    if times or len(summary) < len(SUMMARY):
        return times
    median, deviation = (summary[name].real_time * SECONDS[summary[name].time_unit] for name in SUMMARY)
    return normal_quartiles(median, deviation, summary["median"].repetitions)


def _environment(context: dict[str, Any]) -> dict[str, Any]:
    return {
        "cpus": context.get("num_cpus"),
        "versions": {NAME: context.get("library_version"), "library build": context.get("library_build_type")},
    }
