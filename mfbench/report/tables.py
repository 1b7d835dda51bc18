"""The rows of a report's tables: what each cell says, and what it sorts by."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mfbench.inspect.document import Build
from mfbench.problems.cases import Case
from mfbench.report.evidence import Entry
from mfbench.report.labels import device_and_case, printable, seconds, short, size
from mfbench.report.terminal import error_over_bound, gemm_fraction, half_width
from mfbench.results.comparison import Pair
from mfbench.results.records import Record

COLUMNS = ("case", "provider", "status", "median", "±", "× baseline", "verdict", "error", "peak", "GEMM", "floor")


class Row(NamedTuple):
    """One line: the text of its cells, and for each the number to sort by; None: it sorts by its text."""

    cells: tuple[str, ...]
    keys: tuple[float | None, ...]
    failed: bool
    reason: str  # stands where the last cells are missing
    title: str = ""


def rows(entries: Sequence[Entry], labels: Mapping[tuple[Case | str, str], str]) -> list[Row]:
    """The table of results, its cases under short labels, which sort by data, size and the rest."""
    ordered = sorted({(e.measurement.case, e.measurement.device) for e in entries}, key=_order)
    place = {case: float(number) for number, case in enumerate(ordered)}
    return [
        _row(e, labels[e.measurement.case, e.measurement.device], place[e.measurement.case, e.measurement.device])
        for e in entries
    ]


def _order(named: tuple[Case | str, str]) -> tuple[object, ...]:
    case, device = named
    if isinstance(case, str):
        return case, 0, "", device
    return case.data, case.m * case.n, case.label, device


def _row(entry: Entry, label: str, place: float) -> Row:
    m, record = entry.measurement, entry.record
    cells = [label, printable(short(m.provider)), m.status]
    name, nothing = device_and_case(m.case, m.device), ("", None)
    if m.status == "ok":
        median = (seconds(m.median_s), m.median_s) if m.median_s is not None else nothing
        texts, numbers = zip(median, *(_measured(record) if record else [nothing] * 6), strict=True)
        return Row((*cells, *texts), (place, None, None, *numbers), False, "", name)
    reason = printable(m.reason or "no reason was recorded")
    return Row(tuple(cells), (place,), m.status != "skipped", reason, name)


def _measured(record: Record) -> list[tuple[str, float | None]]:
    speedup = record.speedup
    ratio: tuple[str, float | None] = ("", None)
    verdict = ""
    if speedup and speedup.baseline == record.provider:
        ratio, verdict = ("1", 1.0), "baseline"
    elif speedup:
        ratio, verdict = (_interval(speedup.ratio, *speedup.ci95), speedup.ratio), speedup.verdict
    error, half = error_over_bound(record), half_width(record)
    floor = record.roofline.fraction if record.roofline else None
    return [
        ("" if half is None else f"{half:.1%}", half),
        ratio,
        (verdict, None),
        ("" if error is None else f"{error:.2f}", error),
        (size(record.peak_bytes), record.peak_bytes),
        *(("" if value is None else f"{value:.0%}", value) for value in (gemm_fraction(record), floor)),
    ]


def _interval(ratio: float, low: float | None, high: float | None) -> str:
    return f"{ratio:.3g}" if low is None or high is None else f"{ratio:.3g} [{low:.3g}, {high:.3g}]"


COMPARED_COLUMNS = ("case", "provider", "verdict", "base", "new", "× base")


def compared(pair: Pair, label: str) -> Row:
    """A line of the table of a comparison."""
    sides = [(seconds(m.median_s) if m.median_s is not None else m.status) for m in (pair.base, pair.new)]
    ratio = (
        ""
        if pair.ratio is None
        else _interval(pair.ratio.estimate, *(v if math.isfinite(v) else None for v in pair.ratio[1:]))
    )
    provider = printable(short(pair.new.provider))
    failed = pair.outcome in ("broken", "failing")
    reason = printable(pair.new.reason or "no reason was recorded") if failed else ""
    keys = (None, None, None, pair.base.median_s, pair.new.median_s, pair.ratio and pair.ratio.estimate)
    cells = (label, provider, pair.outcome, *sides, *([] if failed else [ratio]))
    return Row(cells, keys, failed, reason)


BUILD_COLUMNS = (
    "target", "rank", "precision", "encoding", "mode", "tile", "registers", "stack", "shared", "blocks",
    "B a rating", "binds", "of DRAM rate", "ok", "instructions", "cycles",
)  # fmt: skip


def built(build: Build) -> Row:
    """A line of the table of compiled resources."""
    mix = build.mix.model_dump(exclude={"issued", "load_once"})  # parts of what the others count
    clocks = build.modelled.model_dump(exclude={"binds", "dram_fraction"})
    texts = (
        build.target, str(build.rank), build.precision, build.encoding, build.mode, build.tile,
        str(build.registers), str(build.stack_bytes), f"{build.shared_bytes} / {build.shared_limit}",
        str(build.blocks), f"{build.bytes_per_rating:.3g}", build.modelled.binds,
        f"{build.modelled.dram_fraction:.3g}", "yes" if build.ok else f"no: {build.reason}",
        _figures(mix), _figures(clocks),
    )  # fmt: skip
    figures = (build.registers, build.stack_bytes, build.shared_bytes, build.blocks, build.bytes_per_rating)
    keys = (None, build.rank, *[None] * 4, *figures, None, build.modelled.dram_fraction)
    return Row(tuple(printable(text) for text in texts), keys, not build.ok, "")


def _figures(named: dict[str, Any]) -> str:
    """Numbers by name; of numbers by width their sum."""
    totals = {name: sum(v.values()) if isinstance(v, dict) else v for name, v in named.items()}
    return ", ".join(f"{name} {_text(value)}" for name, value in totals.items() if value)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return "" if value is None else str(value)


def environment(entries: Sequence[Entry]) -> list[tuple[str, list[str]]]:
    """Every part of the environments, with its values in the order of the runs."""
    found: dict[str, dict[str, None]] = {}
    for entry in entries:
        for name, value in _flat(entry.measurement.env):
            found.setdefault(name, {})[value] = None
    return [(printable(name), [printable(value) for value in values]) for name, values in found.items()]


VARYING = ("load", "clocks")  # of the moment, not of the machine: only the last is told


def _flat(env: Any) -> list[tuple[str, str]]:
    flat = []
    for name, value in env.items():
        if isinstance(value, dict) and name not in VARYING:
            flat += [(str(part), str(inner)) for part, inner in value.items()]
        elif name.endswith("_bytes") and isinstance(value, int):
            flat.append((name.removesuffix("_bytes"), size(value)))
        elif value is not None and name not in VARYING:
            flat.append((str(name), str(value)))
    return flat
