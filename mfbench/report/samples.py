"""Raw samples packed for the page, which draws them on demand."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mfbench.report.evidence import Key, RunResult
from mfbench.report.history import History
from mfbench.report.labels import printable

BUDGET = 400_000  # samples on a page, the newest first
LEVELS = 65_535


def pack(samples: Iterable[float]) -> dict[str, Any]:
    """Quantise seconds to 16 bits between the least and the largest (`lo`, `hi`): little-endian, in base64."""
    values = np.asarray(list(samples), dtype=np.float64)
    low, high = float(values.min()), float(values.max())
    scaled = np.zeros(len(values)) if high == low else (values - low) / (high - low) * LEVELS
    return {"lo": low, "hi": high, "q": base64.b64encode(np.rint(scaled).astype("<u2").tobytes()).decode()}


class Packed(NamedTuple):
    """The runs and samples of a page."""

    runs: list[list[str]]  # name and time
    items: list[dict[str, Any]]
    left_out: int  # measurements whose samples exceeded the budget


def packed(
    latest: Sequence[RunResult], by_key: Mapping[Key, Sequence[RunResult]], histories: Sequence[History]
) -> Packed:
    """Return an item for each of the newest results, with all of its runs from the first to the last.

    A run of an item is `[number among all runs, median]`, or `[number, null, status]` without times. `samples` maps
    positions in `runs` to packed samples; `changes` lists the positions of change points.
    """
    changes = {history.key: [change.at for change in history.changes] for history in histories}
    numbers: dict[str, int] = {}
    names: list[list[str]] = []
    items = []
    every = [list(by_key.get(result.key, [result])) for result in latest]
    for results in every:
        runs: list[list[Any]] = []
        for result in results:
            if result.run not in numbers:
                numbers[result.run] = len(names)
                names.append([printable(result.run), printable(result.time[:19])])
            m = result.measurement
            runs.append([numbers[result.run], m.median_s, *([] if m.status == "ok" else [m.status])])
        items.append({"runs": runs, "samples": {}, "changes": changes.get(results[0].key, [])})
    return Packed(names, items, _fill(items, every))


def _fill(items: Sequence[dict[str, Any]], runs: Sequence[Sequence[RunResult]]) -> int:
    """Add the samples of each item's newest run, then of the run before it, until the budget is spent."""
    room, left_out = BUDGET, 0
    for back in range(1, max(map(len, runs), default=0) + 1):
        for item, results in zip(items, runs, strict=True):
            samples = results[-back].measurement.samples if back <= len(results) else None
            if not isinstance(samples, np.ndarray):
                continue
            room -= len(samples)
            if room >= 0:
                item["samples"][len(results) - back] = pack(samples)
            else:
                left_out += 1
    return left_out
