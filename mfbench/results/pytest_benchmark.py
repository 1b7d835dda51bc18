"""Measurements of pytest-benchmark, as its `--benchmark-json` and `--benchmark-save` write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, ValidationError

from mfbench.errors import NotComparable
from mfbench.results.comparison import Measurement, Quartiles


class _Stats(BaseModel):
    model_config = ConfigDict(allow_inf_nan=False)

    median: PositiveFloat
    iqr: float = Field(ge=0)
    rounds: int = Field(ge=1)
    data: list[PositiveFloat] | None = None  # `--benchmark-save` leaves it out, unless `--benchmark-save-data` is given


class _Benchmark(BaseModel):
    group: str | None = None
    name: str
    fullname: str
    stats: _Stats


class _Report(BaseModel):
    machine_info: dict[str, Any] = {}
    benchmarks: list[_Benchmark]


def parse(content: bytes) -> Any | None:
    """A file's content where it may be pytest-benchmark's: one JSON object with `benchmarks`; else None."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and "benchmarks" in found else None


def measurements(path: Path, found: Any) -> list[Measurement]:
    """The benchmarks of a file's content. The group is the case (without one, the test's file), the name the provider.

    Raises:
        NotComparable: a field is missing or of another kind.
    """
    try:
        report = _Report.model_validate(found)
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in detail["loc"])
        raise NotComparable(f"{path}: is not as pytest-benchmark writes it: {place}: {detail['msg']}") from None
    env = _environment(report.machine_info)
    return [
        Measurement(
            case=benchmark.group or benchmark.fullname.partition("::")[0],
            provider=benchmark.name,
            device="",
            status="ok",
            reason=None,
            samples=_samples(benchmark.stats),
            env=env,
        )
        for benchmark in report.benchmarks
    ]


def _samples(kept: _Stats) -> np.ndarray | Quartiles:
    return np.array(kept.data) if kept.data else Quartiles(kept.median, kept.iqr, kept.rounds)


def _environment(machine: dict[str, Any]) -> dict[str, Any]:
    cpu = machine.get("cpu")
    cpu = cpu if isinstance(cpu, dict) else {"brand_raw": cpu}
    return {
        "cpu": cpu.get("brand_raw") or machine.get("processor") or machine.get("machine"),
        "cpus": cpu.get("count"),
        "system": f"{machine.get('system')} {machine.get('release')}",
        "versions": {"python": machine.get("python_version")},
    }
