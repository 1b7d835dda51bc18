"""Comparison of files: read two of them, check that they can be compared, and judge."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from mfbench import log
from mfbench.errors import NotComparable
from mfbench.results import foreign, records
from mfbench.results.comparison import Comparison, Measurement, compare, measurement

MOST_NOTES = 5  # printed for each file


class Side(NamedTuple):
    """One side of a comparison."""

    name: str
    measurements: list[Measurement]

    @property
    def tools(self) -> set[str]:
        """The tools that measured it."""
        return {m.tool for m in self.measurements}


def judged(base: Side, new: Side, margin: float, force: bool = False, allow_missing: bool = False) -> Comparison:
    """Compare two sides if their measurements can be compared.

    Args:
        margin: relative difference up to which two times count as the same.
        force: compare measurements from different environments.
        allow_missing: cases that the new side lacks do not change the exit code.

    Raises:
        NotComparable: different tools, or different environments without `force`.
        UsageError: the margin is no fraction.
    """
    if base.tools and new.tools and base.tools != new.tools:
        kinds = (f"{side.name} holds results of {' and '.join(sorted(side.tools))}" for side in (base, new))
        raise NotComparable(f"{' and '.join(kinds)}: they measure in different ways", code="different-kind")
    comparison = compare(
        base.measurements, new.measurements, margin, names=(base.name, new.name), allow_missing=allow_missing
    )
    if comparison.environment and not force:
        differences = "; ".join(map(str, comparison.environment))
        raise NotComparable(
            f"{new.name} was measured in another environment than {base.name}: {differences} (--force compares them "
            "anyway)",
            code="different-environment",
        )
    return comparison


def read(path: Path) -> Side:
    """Read a file of records or of another tool's results, and print notes on what was left out.

    Raises:
        UsageError: the file cannot be read.
        NotComparable: it holds records of an unknown schema, or nothing in it could be read.
    """
    content = records.content(path)
    results = foreign.parse(path, content)
    found, notes = _records(path, content) if results is None else (results.measurements, list(results.notes))
    if not found:
        message = "; ".join(notes[:MOST_NOTES]) or f"{path}: holds no benchmark of {results and results.tool}"
        raise NotComparable(message, code="bad-records" if results is None else None)
    usable = [m for m in found if m.usable]
    if len(usable) < len(found):
        notes.append(f"{path}: {len(found) - len(usable)} left out: status 'ok' without positive times")
    repeated = len(usable) - len({m.key for m in usable})
    if repeated:
        notes.append(f"{path}: {repeated} left out: measured again further down")
    for note in notes[:MOST_NOTES]:
        log.note(note)
    if len(notes) > MOST_NOTES:
        log.note(f"{path}: {len(notes) - MOST_NOTES} more notes of this kind")
    return Side(str(path), usable)


def _records(path: Path, content: bytes) -> tuple[list[Measurement], list[str]]:
    found, notes = records.parse(path, content)
    for number, schema in records.other_schemas(content).items():
        message = f"{path}: line {number} has schema {schema!r}, and this mfbench reads schema {records.SCHEMA}"
        raise NotComparable(message, code="different-schema")
    return [measurement(record) for record in found], notes
