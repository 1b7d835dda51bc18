"""pytest-benchmark: the files of `--benchmark-json` and `--benchmark-save`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from mfbench.results.comparison import Quartiles
from mfbench.results.foreign.results import Part, ToolResults, entries_of, mapping_of

NAME = "pytest-benchmark"


class _Stats(Part):
    median: float
    iqr: float = Field(ge=0)
    rounds: int = Field(ge=1)
    data: list[float] | None = None  # only with `--benchmark-json` or `--benchmark-save-data`


class _Benchmark(Part):
    group: str | None = None
    fullname: str
    stats: _Stats


def recognises(document: dict[str, Any]) -> bool:
    """Return whether pytest-benchmark wrote this document."""
    return "benchmarks" in document and "machine_info" in document


def read(path: Path, document: dict[str, Any]) -> ToolResults:
    """Read the benchmarks of a document.

    The case is a benchmark's group, or else its file. Its name is the rest of `fullname`: unlike `name` that is
    unique, since two classes may have tests of one name, and a group may span files.
    """
    results = ToolResults(
        path, NAME, _environment(mapping_of(document, "machine_info")), str(document.get("datetime") or "")
    )
    for benchmark in results.valid(_Benchmark, entries_of(document, "benchmarks")):
        file, _, test = benchmark.fullname.partition("::")
        stats = benchmark.stats
        samples = stats.data or Quartiles(stats.median, stats.iqr, stats.rounds)
        if benchmark.group:
            results.add(benchmark.group, benchmark.fullname, samples)
        else:
            results.add(file, test or file, samples)
    return results


def _environment(machine: dict[str, Any]) -> dict[str, Any]:
    cpu = machine.get("cpu")
    cpu = cpu if isinstance(cpu, dict) else {"brand_raw": cpu}
    return {
        "cpu": cpu.get("brand_raw") or machine.get("processor") or machine.get("machine"),
        "cpus": cpu.get("count"),
        "system": f"{machine.get('system')} {machine.get('release')}",
        "versions": {"python": machine.get("python_version")},
    }
