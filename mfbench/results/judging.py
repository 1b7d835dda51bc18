"""Judge two sides of measurements, from reading their files to a comparison that is allowed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mfbench import log
from mfbench.errors import NotComparable
from mfbench.results import pytest_benchmark, records
from mfbench.results.comparison import Comparison, Difference, Measurement, compare, measurement

RECORDS, BENCHMARKS = "mfbench's records", "pytest-benchmark's times"  # kinds of measurements
NOTES = 5  # most notes shown for a file


Side = tuple[str, str, list[Measurement]]  # name, kind, measurements


def judged(base: Side, new: Side, margin: float, force: bool) -> Comparison:
    """The comparison of two sides that may be compared.

    Raises:
        NotComparable: two kinds of measurements, or another environment without `force`.
    """
    (base_name, base_kind, old), (new_name, new_kind, now) = base, new
    if base_kind != new_kind:
        raise NotComparable(
            f"{base_name} has {base_kind} and {new_name} has {new_kind}: they measure in different ways"
        )
    comparison = compare(old, now, margin)
    if comparison.environment and not force:
        differences = "; ".join(map(described, comparison.environment))
        raise NotComparable(
            f"{new_name} was measured in another environment than {base_name}: {differences} (--force compares them "
            "all the same)"
        )
    return comparison


def described(difference: Difference) -> str:
    return f"{difference.name} is {difference.new}, was {difference.base}"


def read(path: Path) -> tuple[str, list[Measurement]]:
    """What kind of file it is, and its measurements; notes of what was left out go to stderr.

    Raises:
        UsageError: the file cannot be read.
        NotComparable: it holds records of a schema that this version does not know.
    """
    content = records.content(path)
    foreign, notes = pytest_benchmark.parse(content), list[str]()
    if foreign is not None:
        kind, found = BENCHMARKS, pytest_benchmark.measurements(path, foreign)
    else:
        found_records, notes = records.parse(path, content)
        _check_schema(path, content)
        kind, found = RECORDS, [measurement(record) for record in found_records]
    usable = [m for m in found if m.usable]
    if len(usable) < len(found):
        notes.append(f"{path}: {len(found) - len(usable)} left out, which are ok but have no positive times")
    repeated = len(usable) - len({m.key for m in usable})
    if repeated:
        notes.append(f"{path}: {repeated} left out, whose case was measured again further down")
    tell(notes[:NOTES])
    if len(notes) > NOTES:
        tell([f"{path}: {len(notes) - NOTES} more notes of this kind"])
    return kind, usable


def _check_schema(path: Path, content: bytes) -> None:
    for number, schema in records.other_schemas(content).items():
        raise NotComparable(
            f"{path}: line {number} has schema {schema!r}, and this mfbench reads schema {records.SCHEMA}"
        )


def tell(notes: Iterable[str]) -> None:
    for message in notes:
        log.note(message)
