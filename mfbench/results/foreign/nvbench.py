"""nvbench: the files of `--json` and `--jsonbin`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from mfbench.results.comparison import Quartiles
from mfbench.results.foreign.results import Part, ToolResults, entries_of, mapping_of, normal_quartiles

NAME = "nvbench"
TIME = "nv/cold/time/gpu"  # of an isolated launch, by CUDA events
SAMPLES = "nv/json/bin:nv/cold/sample_times"


class _Value(Part):
    name: str
    value: str  # numbers are strings, too


class _Summary(Part):
    tag: str
    data: list[_Value] | None = None


class _State(Part):
    name: str
    device: int | None = None
    summaries: list[_Summary] | None = None
    is_skipped: bool = False
    skip_reason: str = ""

    def find(self, tag: str, name: str = "value") -> str | None:
        """Return a value of a summary."""
        values = (v for summary in self.summaries or [] if summary.tag == tag for v in summary.data or [])
        return next((v.value for v in values if v.name == name), None)

    def number(self, tag: str) -> float | None:
        """Return the number of a summary; None where it is missing or not finite, as the deviation of one sample is."""
        found = self.find(tag)
        try:
            number = math.nan if found is None else float(found)
        except ValueError:  # words
            return None
        return number if math.isfinite(number) else None


class _Benchmark(Part):
    name: str
    states: list[_State] | None = None


def recognises(document: dict[str, Any]) -> bool:
    """Return whether nvbench wrote this document."""
    return any(isinstance(entry, dict) and "states" in entry for entry in entries_of(document, "benchmarks"))


def read(path: Path, document: dict[str, Any]) -> ToolResults:
    """Read the states of a document: the samples if they were written beside it, or else their summary."""
    results = ToolResults(path, NAME)
    gpus = {device.get("id"): device.get("name") for device in entries_of(document, "devices")}
    version = mapping_of(mapping_of(mapping_of(document, "meta"), "version"), NAME).get("string")
    for benchmark in results.valid(_Benchmark, entries_of(document, "benchmarks")):
        for state in benchmark.states or []:
            where = {
                "device": f"device {state.device}",
                "env": {"gpu": gpus.get(state.device), "versions": {NAME: version}},
            }
            samples = _samples(path, state)
            if state.is_skipped:
                results.add_failure(benchmark.name, state.name, "skipped", state.skip_reason or "no reason", **where)
            elif samples is None:
                results.leave_out(f"{benchmark.name} {state.name}", "it has no isolated GPU time")
            else:
                results.add(benchmark.name, state.name, samples, **where)
    return results


def _samples(path: Path, state: _State) -> list[float] | Quartiles | None:
    file = state.find(SAMPLES, "filename")
    if file is not None:
        beside = path.parent / Path(file).parent.name / Path(file).name
        if beside.is_file():
            return [float(value) for value in np.fromfile(beside, dtype="<f4")]
    count = int(state.number("nv/cold/sample_size") or 1)
    median, mean = state.number(f"{TIME}/median"), state.number(f"{TIME}/mean")
    spread = state.number(f"{TIME}/iqr/absolute") or state.number(f"{TIME}/ir/absolute")
    if median is not None and spread is not None:
        return Quartiles(median, spread, count)
    if mean is None:
        return None
    deviation, relative = state.number(f"{TIME}/stdev/absolute"), state.number(f"{TIME}/stdev/relative")
    if deviation is None and relative is not None:
        deviation = mean * relative
    return Quartiles(mean, 0.0, 1) if deviation is None else normal_quartiles(mean, deviation, count)
