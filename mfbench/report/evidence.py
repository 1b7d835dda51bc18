"""What files hold: runs of measurements, resources of compiled builds, and notes of what was left out."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from mfbench.errors import NotComparable
from mfbench.inspect import document
from mfbench.problems.cases import Case
from mfbench.results import pytest_benchmark, records
from mfbench.results.comparison import Measurement, measurement
from mfbench.results.records import Record

LISTED = 5  # notes of one file that are told one by one

Key = tuple[Case | str, str, str]


class Entry(NamedTuple):
    """A measurement; `record` is None where another tool took it."""

    measurement: Measurement
    record: Record | None
    run: str
    time: str  # ISO 8601

    @property
    def key(self) -> Key:
        return self.measurement.key


class Run(NamedTuple):
    """What was measured together, and in which file it stands."""

    source: str
    name: str
    entries: list[Entry]


class Evidence(NamedTuple):
    """Everything that a report is made of."""

    runs: Sequence[Run]
    builds: Sequence[document.Build]
    notes: Sequence[str]

    @property
    def entries(self) -> list[Entry]:
        return [entry for run in self.runs for entry in run.entries]

    def latest(self) -> list[Entry]:
        """The last entry of every key; a skipped one only where there is no other. A case's entries stand together."""
        found: dict[Key, Entry] = {}
        for entry in self.entries:
            if entry.measurement.status != "skipped" or entry.key not in found:
                found[entry.key] = entry
        by_case: dict[Any, list[Entry]] = {}
        for entry in found.values():
            by_case.setdefault((entry.measurement.case, entry.measurement.device), []).append(entry)
        return [entry for together in by_case.values() for entry in together]

    def histories(self) -> dict[Key, list[Entry]]:
        """All entries of every key, by time; what was skipped left out."""
        found: dict[Key, list[Entry]] = {}
        for entry in self.entries:
            if entry.measurement.status != "skipped":
                found.setdefault(entry.key, []).append(entry)
        return {key: sorted(entries, key=lambda entry: entry.time) for key, entries in found.items()}

    def sides(self) -> tuple[tuple[str, list[Entry]], tuple[str, list[Entry]]] | None:
        """Base and new side of a comparison, each with its name: first and last file, else the last run in one file
        and all that came before it; None where there is nothing to compare."""
        sources = list(dict.fromkeys(run.source for run in self.runs))
        if len(sources) > 1:
            first, last = (
                [e for run in self.runs if run.source == s for e in run.entries] for s in (sources[0], sources[-1])
            )
            return (sources[0], first), (sources[-1], last)
        if len(self.runs) < 2:
            return None
        earlier = [entry for run in self.runs[:-1] for entry in run.entries]
        name = self.runs[0].name if len(self.runs) == 2 else f"the {len(self.runs) - 1} runs before it"
        return (name, earlier), (self.runs[-1].name, self.runs[-1].entries)


def of_records(found: Sequence[Record], source: str = "") -> list[Run]:
    """The runs of records, in the order in which they began."""
    runs: dict[str, list[Entry]] = {}
    for record in found:
        entry = Entry(measurement(record), _sound(record), record.run_id, record.time)
        runs.setdefault(record.run_id, []).append(entry)
    return [Run(source, name, entries) for name, entries in runs.items()]


def _sound(record: Record) -> Record:
    """The record without parts that no measurement can have given: a logarithm of theirs has no place on an axis."""
    numbers = {
        "speedup": [record.speedup.ratio, *record.speedup.ci95] if record.speedup else [],
        "rates": list(record.rates.model_dump().values()) if record.rates else [],
        "roofline": [v for v in record.roofline.model_dump().values() if v != record.roofline.bound]
        if record.roofline
        else [],
    }
    wrong = [
        part
        for part, values in numbers.items()
        if not all(value is None or (math.isfinite(value) and value >= 0) for value in values) or values[:1] == [0]
    ]
    return record.model_copy(update=dict.fromkeys(wrong)) if wrong else record


def load(paths: Iterable[Path]) -> Evidence:
    """Read files of records, of pytest-benchmark's JSON and of `mfbench inspect --json`, in the order given.

    Raises:
        UsageError: a file cannot be read. What is in it never raises: it is left out with a note.
    """
    parts = [_load(path) for path in paths]
    return Evidence(
        [run for part in parts for run in part.runs],
        [build for part in parts for build in part.builds],
        [note for part in parts for note in part.notes],
    )


def _load(path: Path) -> Evidence:
    found = records.content(path)
    try:
        content = json.loads(found)
    except (ValueError, RecursionError):
        content = None
    if isinstance(content, dict) and content.get("schema") == document.SCHEMA:
        return _builds(path, content)
    if isinstance(content, dict) and "benchmarks" in content:
        return _foreign(path, content)
    return _usable(path, *_records(path, found))


def _records(path: Path, content: bytes) -> tuple[list[Run], list[str]]:
    found, notes = records.parse(path, content)
    others = records.other_schemas(content)
    told = {f"{path}: line {number} is" for number in others}
    notes = [note for note in notes if not any(note.startswith(beginning) for beginning in told)]
    if len(notes) > LISTED:
        notes = [*notes[:LISTED], f"{path}: {len(notes) - LISTED} more lines are no records and were left out"]
    for schema, numbers in groupby(sorted(others, key=lambda number: str(others[number])), key=others.__getitem__):
        lines = list(numbers)
        notes.append(
            f"{path}: {_counted(len(lines), 'record')} of schema {schema!r} left out (the first is line {lines[0]}): "
            f"this mfbench reads schema {records.SCHEMA}"
        )
    found = [record for record in found if record.schema_ == records.SCHEMA]
    return of_records(found, str(path)), notes


def _foreign(path: Path, content: Any) -> Evidence:
    try:
        found = pytest_benchmark.measurements(path, content)
    except NotComparable as error:
        return Evidence([], [], [f"{error}; the file was left out"])
    time = str(content.get("datetime") or "")
    return _usable(path, [Run(str(path), path.name, [Entry(m, None, path.name, time) for m in found])], [])


def _builds(path: Path, content: dict[str, Any]) -> Evidence:
    found, builds, notes = content.get("builds"), [], []
    for number, build in enumerate(found if isinstance(found, list) else []):
        try:
            builds.append(document.Build.model_validate(build))
        except ValidationError as error:
            detail = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in detail["loc"])
            notes.append(f"{path}: builds[{number}] was left out: {place}: {detail['msg']}")
    if not isinstance(found, list):
        notes = [f"{path}: has no list 'builds' and was left out"]
    if not_built := content.get("not_built"):
        notes.append(f"{path}: {_counted(len(not_built), 'configuration')} could not be compiled or are not shipped")
    return Evidence([], builds, notes)


def _usable(path: Path, runs: list[Run], notes: list[str]) -> Evidence:
    kept = [run._replace(entries=[entry for entry in run.entries if entry.measurement.usable]) for run in runs]
    count = sum(len(run.entries) for run in runs) - sum(len(run.entries) for run in kept)
    if count:
        notes = [*notes, f"{path}: {_counted(count, 'record')} left out, 'ok' but without positive times"]
    kept = [run for run in kept if run.entries]
    if not kept:
        notes = [*notes, f"{path}: nothing in it can be shown"]
    return Evidence(kept, [], notes)


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("s" if count != 1 else "")
