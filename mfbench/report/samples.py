"""Raw samples packed for the page, which draws them on demand."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mfbench.report.evidence import Entry, Key
from mfbench.report.history import Course
from mfbench.report.labels import printable

BUDGET = 400_000  # samples on a page; the newest have the first claim
LEVELS = 65_535


def pack(samples: Iterable[float]) -> dict[str, Any]:
    """Seconds as 16-bit steps between the least and the largest (`lo`, `hi`), little-endian, in base64."""
    values = np.asarray(list(samples), dtype=np.float64)
    low, high = float(values.min()), float(values.max())
    scaled = np.zeros(len(values)) if high == low else (values - low) / (high - low) * LEVELS
    return {"lo": low, "hi": high, "q": base64.b64encode(np.rint(scaled).astype("<u2").tobytes()).decode()}


class Packed(NamedTuple):
    """What the page knows of runs and samples."""

    runs: list[list[str]]  # name and time
    items: list[dict[str, Any]]
    left_out: int  # measurements whose samples had no room


def packed(latest: Sequence[Entry], histories: Mapping[Key, Sequence[Entry]], courses: Mapping[Key, Course]) -> Packed:
    """An item for each of the latest entries, with all of its runs from the first to the last.

    A run of an item is `[number among all runs, median]`, or `[number, null, status]` where it has no times;
    `samples` has the packed ones by the position in `runs`, `steps` the positions where a step begins.
    """
    numbers: dict[str, int] = {}
    names: list[list[str]] = []
    items = []
    every = [list(histories.get(entry.key, [entry])) for entry in latest]
    for entries in every:
        runs: list[list[Any]] = []
        for entry in entries:
            if entry.run not in numbers:
                numbers[entry.run] = len(names)
                names.append([printable(entry.run), printable(entry.time[:19])])
            m = entry.measurement
            runs.append([numbers[entry.run], m.median_s, *([] if m.status == "ok" else [m.status])])
        course = courses.get(entries[0].key)
        items.append({"runs": runs, "samples": {}, "steps": [step.at for step in course.steps] if course else []})
    return Packed(names, items, _fill(items, every))


def _fill(items: Sequence[dict[str, Any]], runs: Sequence[Sequence[Entry]]) -> int:
    """The newest run of every item first, then the one before it, until the budget is spent."""
    room, left_out = BUDGET, 0
    for back in range(1, max(map(len, runs), default=0) + 1):
        for item, entries in zip(items, runs, strict=True):
            samples = entries[-back].measurement.samples if back <= len(entries) else None
            if not isinstance(samples, np.ndarray):
                continue
            room -= len(samples)
            if room >= 0:
                item["samples"][len(entries) - back] = pack(samples)
            else:
                left_out += 1
    return left_out
