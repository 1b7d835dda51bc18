"""asv (airspeed velocity): the file of one commit below `results/MACHINE/`."""

from __future__ import annotations

import datetime
import itertools
import math
import re
from pathlib import Path
from typing import Any

from mfbench.results.comparison import Quartiles
from mfbench.results.foreign.results import ToolResults, entries_of, mapping_of

NAME = "asv"
TIMES = re.compile(r"(time|timeraw)_|Time[A-Z_]")  # names of functions that asv times; others track something else
Column = list[Any]


def recognises(document: dict[str, Any]) -> bool:
    """Return whether asv wrote this document."""
    return "result_columns" in document and isinstance(document.get("results"), dict)


def read(path: Path, document: dict[str, Any]) -> ToolResults:
    """Read the timed benchmarks of a document, one measurement for each combination of parameters.

    asv writes null for a combination that failed and NaN for one that was skipped. Samples are present if it ran with
    `--record-samples`; without them the quartiles are used.
    """
    results = ToolResults(path, NAME, _environment(document), _time(document.get("date")))
    columns = [str(column) for column in entries_of(document, "result_columns")]
    for name, row in document["results"].items():
        if not TIMES.match(name.rpartition(".")[2]):
            results.leave_out(name, "it tracks something other than time")
        elif not isinstance(row, list):
            results.leave_out(name, f"expected a list, got {type(row).__name__}")
        else:
            _add(results, name, dict(zip(columns, row, strict=False)))
    return results


def _add(results: ToolResults, benchmark: str, fields: dict[str, Any]) -> None:
    case, _, name = benchmark.rpartition(".")
    combinations = [", ".join(map(str, values)) for values in itertools.product(*(fields.get("params") or []))]
    medians = fields.get("result") or [None] * len(combinations)  # null: all of them failed
    for at, (parameters, median) in enumerate(zip(combinations, medians, strict=False)):
        label = f"{name}({parameters})" if parameters else name
        if median is None:
            results.add_failure(case, label, "error", "asv recorded a failure")
        elif not isinstance(median, int | float):
            results.leave_out(f"{case}.{label}", f"expected a number of seconds, got {median!r}")
        elif math.isnan(median):
            results.add_failure(case, label, "skipped", "skipped by its setup")
        else:
            results.add(case, label, _samples(fields, at, float(median)))


def _samples(fields: dict[str, Any], at: int, median: float) -> list[float] | Quartiles:
    def value(column: str) -> Any:
        values = fields.get(column)
        return values[at] if isinstance(values, list) and at < len(values) else None

    if samples := value("samples"):
        return list(samples)
    low, high = value("stats_q_25"), value("stats_q_75")
    known = low is not None and high is not None
    return Quartiles(median, high - low if known else 0.0, (value("stats_repeat") or 1) if known else 1)


def _time(milliseconds: Any) -> str:
    if not isinstance(milliseconds, int | float):
        return ""
    return datetime.datetime.fromtimestamp(milliseconds / 1e3, datetime.timezone.utc).isoformat()


def _environment(document: dict[str, Any]) -> dict[str, Any]:
    machine = mapping_of(document, "params")
    return {
        "cpu": machine.get("cpu"),
        "cpus": machine.get("num_cpu"),
        "system": machine.get("os"),
        "versions": {"python": document.get("python"), **mapping_of(document, "requirements")},
    }
