"""pyperf: the files of its `-o` option, compressed or not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from mfbench.results.foreign.results import Part, ToolResults, entries_of, mapping_of

NAME = "pyperf"
SECONDS = "second"  # the unit of times; other benchmarks count bytes or integers


class _Run(Part):
    metadata: dict[str, Any] = Field({})
    values: Sequence[float] = ()  # per loop; none in a run that only calibrated the number of loops


class _Benchmark(Part):
    metadata: dict[str, Any] = Field({})
    runs: list[_Run]


def recognises(document: dict[str, Any]) -> bool:
    """Return whether pyperf wrote this document."""
    return any(isinstance(entry, dict) and "runs" in entry for entry in entries_of(document, "benchmarks"))


def read(path: Path, document: dict[str, Any]) -> ToolResults:
    """Read the benchmarks of a document; the values of successive processes are kept in their order."""
    shared = mapping_of(document, "metadata")
    results = ToolResults(path, NAME)
    for benchmark in results.valid(_Benchmark, entries_of(document, "benchmarks")):
        metadata = {**shared, **benchmark.metadata}
        name, unit = str(metadata.get("name", "unnamed")), metadata.get("unit", SECONDS)
        if unit != SECONDS:
            results.leave_out(name, f"its unit is {unit}, not seconds")
            continue
        values = [value for run in benchmark.runs for value in run.values]
        results.add(NAME, name, values, env=_environment(metadata))
        results.time = results.time or next((_time(run) for run in benchmark.runs), "")
    return results


def _time(run: _Run) -> str:
    return str(run.metadata.get("date", "")).replace(" ", "T")


def _environment(metadata: dict[str, Any]) -> dict[str, Any]:
    return {
        "cpu": metadata.get("cpu_model_name"),
        "cpus": metadata.get("cpu_count"),
        "system": metadata.get("platform"),
        "versions": {"python": metadata.get("python_version")},
    }
