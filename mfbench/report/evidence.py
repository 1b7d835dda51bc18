"""The contents of files: runs of measurements, resources of compiled builds, and notes on what was left out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from mfbench.inspect import document
from mfbench.problems.cases import Case
from mfbench.problems.faults import first_fault
from mfbench.report.labels import Place
from mfbench.results import foreign, records
from mfbench.results.comparison import Measurement, measurement
from mfbench.results.foreign.registry import json_object
from mfbench.results.records import Record
from mfbench.wording import counted

MOST_NOTES = 5  # of one kind for each file

Key = tuple[Case | str, str, str]  # case, provider, device


class RunResult(NamedTuple):
    """A measurement and the run that it belongs to."""

    measurement: Measurement
    record: Record | None  # None: measured by another tool
    run: str
    time: str  # ISO 8601

    @property
    def key(self) -> Key:
        """What identifies the measurement within its run."""
        return self.measurement.key

    @property
    def place(self) -> Place:
        """Its case and device."""
        return Place(self.measurement.case, self.measurement.device)


class Run(NamedTuple):
    """Measurements that were taken together, and the file that holds them."""

    source: str
    name: str
    results: list[RunResult]


class Side(NamedTuple):
    """One side of a comparison."""

    name: str
    results: list[RunResult]


class Evidence(NamedTuple):
    """Everything that a report is made of."""

    runs: Sequence[Run]
    builds: Sequence[document.Build]
    notes: Sequence[str]

    @property
    def results(self) -> list[RunResult]:
        """All measurements in the order of the files."""
        return [result for run in self.runs for result in run.results]

    def latest(self) -> list[RunResult]:
        """Return the newest result of each key, grouped by case; a skipped one only if there is no other."""
        found: dict[Key, RunResult] = {}
        for result in self.results:
            if result.measurement.status != "skipped" or result.key not in found:
                found[result.key] = result
        by_place: dict[Place, list[RunResult]] = {}
        for result in found.values():
            by_place.setdefault(result.place, []).append(result)
        return [result for together in by_place.values() for result in together]

    def by_key(self) -> dict[Key, list[RunResult]]:
        """Return all results of each key ordered by time, without skipped ones."""
        found: dict[Key, list[RunResult]] = {}
        for result in self.results:
            if result.measurement.status != "skipped":
                found.setdefault(result.key, []).append(result)
        return {key: sorted(results, key=lambda result: result.time) for key, results in found.items()}

    def sides(self) -> tuple[Side, Side] | None:
        """Return the base and the new side of a comparison; None if there is nothing to compare.

        They are the first and the last of several files, or the last run in one file and all runs before it.
        """
        sources = list(dict.fromkeys(run.source for run in self.runs))
        if len(sources) > 1:
            first, last = (Side(s, [r for run in self.runs if run.source == s for r in run.results])
                           for s in (sources[0], sources[-1]))  # fmt: skip
            return first, last
        if len(self.runs) < 2:
            return None
        *earlier, newest = self.runs
        name = earlier[0].name if len(earlier) == 1 else f"the {len(earlier)} runs before it"
        return Side(name, [r for run in earlier for r in run.results]), Side(newest.name, newest.results)


def of_records(found: Sequence[Record], source: str = "") -> list[Run]:
    """Group records into runs, ordered by their first record."""
    runs: dict[str, list[RunResult]] = {}
    for record in found:
        result = RunResult(measurement(record), _plausible(record), record.run_id, record.time)
        runs.setdefault(record.run_id, []).append(result)
    return [Run(source, name, results) for name, results in runs.items()]


def _plausible(record: Record) -> Record:
    """Return the record without parts whose numbers no measurement can yield and no logarithmic axis can show."""
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
    """Read files of records, of other tools' results and of `mfbench inspect --json`, in the order given.

    Raises:
        UsageError: a file cannot be read. Contents never raise; what is unusable is left out with a note.
    """
    parts = [_load(path) for path in paths]
    return Evidence(
        [run for part in parts for run in part.runs],
        [build for part in parts for build in part.builds],
        [note for part in parts for note in part.notes],
    )


def _load(path: Path) -> Evidence:
    content = records.content(path)
    found = json_object(content)
    if found and found.get("schema") == document.SCHEMA:
        return _builds(path, found)
    results = foreign.parse(path, content)
    if results is None:
        return _usable(path, *_records(path, content))
    run = Run(str(path), path.name, [RunResult(m, None, path.name, results.time) for m in results.measurements])
    return _usable(path, [run], _shortened(path, results.notes))


def _records(path: Path, content: bytes) -> tuple[list[Run], list[str]]:
    found, notes = records.parse(path, content)
    others = records.other_schemas(content)
    of_others = tuple(f"{path}: line {number} is" for number in others)
    notes = _shortened(path, [note for note in notes if not note.startswith(of_others)] if others else notes)
    for schema, numbers in groupby(sorted(others, key=lambda number: str(others[number])), key=others.__getitem__):
        lines = list(numbers)
        notes.append(
            f"{path}: {counted(len(lines), 'record')} of schema {schema!r} left out (the first is line {lines[0]}): "
            f"this mfbench reads schema {records.SCHEMA}"
        )
    return of_records([record for record in found if record.schema_ == records.SCHEMA], str(path)), notes


def _shortened(path: Path, notes: Sequence[str]) -> list[str]:
    more = len(notes) - MOST_NOTES
    return [*notes[:MOST_NOTES], *([f"{path}: {more} more were left out"] if more > 0 else [])]


def _builds(path: Path, content: dict[str, Any]) -> Evidence:
    found, builds, notes = content.get("builds"), [], []
    for number, build in enumerate(found if isinstance(found, list) else []):
        try:
            builds.append(document.Build.model_validate(build))
        except ValidationError as error:
            notes.append(f"{path}: builds[{number}] was left out: {first_fault(error)}")
    if not isinstance(found, list):
        notes = [f"{path}: has no list 'builds' and was left out"]
    if not_built := content.get("not_built"):
        notes.append(f"{path}: {counted(len(not_built), 'configuration')} could not be compiled or are not shipped")
    return Evidence([], builds, notes)


def _usable(path: Path, runs: list[Run], notes: list[str]) -> Evidence:
    kept = [run._replace(results=[result for result in run.results if result.measurement.usable]) for run in runs]
    count = sum(len(run.results) for run in runs) - sum(len(run.results) for run in kept)
    if count:
        notes = [*notes, f"{path}: {counted(count, 'record')} left out: status 'ok' without positive times"]
    kept = [run for run in kept if run.results]
    if not kept and not notes:
        notes = [*notes, f"{path}: nothing in it can be shown"]
    return Evidence(kept, [], notes)
