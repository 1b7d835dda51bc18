"""The measurements of another tool's file, collected by the readers of this folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from mfbench.problems.faults import first_fault
from mfbench.results.comparison import Measurement, Quartiles
from mfbench.stats.intervals import NORMAL_QUARTILES


class Part(BaseModel):
    """A part of a file; unknown fields are ignored, NaN and infinity are refused."""

    model_config = ConfigDict(allow_inf_nan=False)


Kind = TypeVar("Kind", bound=Part)


@dataclass
class ToolResults:
    """What a file holds, and notes on what was left out of it."""

    path: Path
    tool: str
    env: Mapping[str, Any] = field(default_factory=dict)
    time: str = ""  # of the run, ISO 8601
    measurements: list[Measurement] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _names: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # of cases, benchmarks and devices

    def add(self, case: str, name: str, samples: Sequence[float] | Quartiles, **fields: Any) -> None:
        """Add a benchmark with its times in seconds; leave it out, with a note, if they are not all positive."""
        times = samples if isinstance(samples, Quartiles) else np.array(samples, dtype=np.float64)
        centre = times.median if isinstance(times, Quartiles) else times
        if np.size(centre) and np.all(np.isfinite(centre)) and np.all(np.greater(centre, 0)):
            self._add(case, name, "ok", None, times, fields)
        else:
            self.leave_out(name, "a time of it is zero or missing")

    def add_failure(self, case: str, name: str, status: str, reason: str, **fields: Any) -> None:
        """Add a benchmark that did not run, with its status in the terms of a record."""
        self._add(case, name, status, reason, None, fields)

    def _add(self, case: str, name: str, status: str, reason: str | None, samples: Any, fields: dict[str, Any]) -> None:
        given: dict[str, Any] = {"device": "", "env": self.env, "tool": self.tool} | fields
        self._names[case, name, given["device"]] += 1
        if (number := self._names[case, name, given["device"]]) > 1:
            name += f" (no. {number})"  # a file may hold two of one name, told apart by their order alone
        self.measurements.append(
            Measurement(case=case, provider=name, status=status, reason=reason, samples=samples, **given)
        )

    def leave_out(self, name: str, reason: str) -> None:
        """Note that a benchmark was left out."""
        self.notes.append(f"{self.path}: {name} was left out: {reason}")

    def valid(self, kind: type[Kind], entries: Iterable[Any], place: str = "benchmarks") -> Iterator[Kind]:
        """Yield the entries of a list that fit a model, and leave out the others by name."""
        for number, entry in enumerate(entries):
            try:
                yield kind.model_validate(entry)
            except ValidationError as error:
                fault = first_fault(error, f"{place}.{number}")
                self.leave_out(_name_of(entry) or f"{place}[{number}]", fault)


def _name_of(entry: Any) -> str | None:
    if not isinstance(entry, dict):
        return None
    names = (entry.get(key) for key in ("fullname", "name", "command"))
    return next((name for name in names if isinstance(name, str)), None)


def entries_of(document: Mapping[str, Any], key: str) -> list[Any]:
    """Return a list of a document, empty if it is none."""
    found = document.get(key)
    return found if isinstance(found, list) else []


def mapping_of(document: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return an object of a document, empty if it is none."""
    found = document.get(key)
    return found if isinstance(found, dict) else {}


def normal_quartiles(mean: float, deviation: float, count: int) -> Quartiles:
    """Return the quartiles of normally distributed times, where a tool kept mean and standard deviation alone."""
    return Quartiles(mean, NORMAL_QUARTILES * deviation, count)
