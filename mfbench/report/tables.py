"""The rows of the tables of a report: texts of cells, and the numbers that they sort by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mfbench.inspect.document import Build
from mfbench.report.derived import error_over_bound, gemm_fraction, half_width, verdict
from mfbench.report.evidence import RunResult
from mfbench.report.labels import Place, full_name, interval, printable, seconds, short, size
from mfbench.results.comparison import OUTCOMES, Pair
from mfbench.results.records import Record

MOMENTARY = ("load", "clocks")  # properties of the moment rather than of the machine, which are not shown


class Cell(NamedTuple):
    """A text, and the number to sort by; without one it sorts by its text."""

    text: str
    number: float | None = None


EMPTY = Cell("")


class Row(NamedTuple):
    """A row of a table."""

    cells: Sequence[Cell]
    failed: bool
    reason: str  # in place of the last cells
    title: str = ""


COLUMNS = ("case", "provider", "status", "median", "±", "× baseline", "verdict", "error", "peak", "GEMM", "floor")


def rows(results: Sequence[RunResult], labels: Mapping[Place, str]) -> list[Row]:
    """Return the table of results; its cases have short labels and sort by data, size and the rest."""
    order = {place: number for number, place in enumerate(sorted({r.place for r in results}, key=_order))}
    return [_row(result, Cell(labels[result.place], order[result.place])) for result in results]


def _order(place: Place) -> tuple[object, ...]:
    case, device = place
    if isinstance(case, str):
        return case, 0, "", device
    return case.data, case.m * case.n, case.label, device


def _row(result: RunResult, case: Cell) -> Row:
    m, record = result.measurement, result.record
    cells = [case, Cell(printable(short(m.provider))), Cell(m.status)]
    name = full_name(*result.place)
    if m.status == "ok":
        median = EMPTY if m.median_s is None else Cell(seconds(m.median_s), m.median_s)
        return Row((*cells, median, *(_measured(record) if record else [EMPTY] * 7)), False, "", name)
    return Row(cells, m.status != "skipped", printable(m.reason or "no reason was recorded"), name)


def _measured(record: Record) -> list[Cell]:
    speedup = record.speedup
    judged, ratio = verdict(record), EMPTY
    if judged == "baseline":
        ratio = Cell("1", 1.0)
    elif speedup:
        ratio = Cell(f"{speedup.ratio:.3g} {interval(*speedup.ci95)}", speedup.ratio)
    error, half = error_over_bound(record), half_width(record)
    floor = record.roofline.fraction if record.roofline else None
    return [
        EMPTY if half is None else Cell(f"{half:.1%}", half),
        ratio,
        EMPTY if judged is None else Cell(judged),
        EMPTY if error is None else Cell(f"{error:.2f}", error),
        Cell(size(record.peak_bytes), record.peak_bytes),
        *(EMPTY if value is None else Cell(f"{value:.0%}", value) for value in (gemm_fraction(record), floor)),
    ]


PAIR_COLUMNS = ("case", "provider", "verdict", "base", "new", "× base")


def pair_row(pair: Pair, label: str) -> Row:
    """Return the row of a pair in the table of a comparison."""
    cells = [
        Cell(label),
        Cell(printable(short(pair.new.provider))),
        Cell(OUTCOMES[pair.outcome]),
        *(Cell(seconds(m.median_s) if m.median_s is not None else m.status, m.median_s) for m in (pair.base, pair.new)),
    ]
    if pair.outcome in ("broken", "failing"):
        return Row(cells, True, printable(pair.new.reason or "no reason was recorded"))
    if pair.ratio is None:
        return Row((*cells, EMPTY), False, "")
    estimate, low, high = pair.ratio
    return Row((*cells, Cell(f"{estimate:.3g} {interval(low, high)}", estimate)), False, "")


BUILD_COLUMNS = (
    "target", "rank", "precision", "encoding", "mode", "tile", "registers", "stack", "shared", "blocks",
    "B per rating", "binds", "of DRAM rate", "ok", "instructions", "cycles", "registers of the other launches",
)  # fmt: skip


def build_row(build: Build) -> Row:
    """Return the row of a build in the table of compiled resources."""
    mix = build.mix.model_dump(exclude={"issued", "load_once"})  # these are parts of other counts
    clocks = build.modelled.model_dump(exclude={"binds", "dram_fraction"})
    words = (build.precision, build.encoding, build.mode, build.tile)
    cells = (
        Cell(build.target),
        Cell(str(build.rank), build.rank),
        *(Cell(printable(word)) for word in words),
        Cell(str(build.registers), build.registers),
        Cell(str(build.stack_bytes), build.stack_bytes),
        Cell(f"{build.shared_bytes} / {build.shared_limit}", build.shared_bytes),
        Cell(str(build.blocks), build.blocks),
        Cell(f"{build.bytes_per_rating:.3g}", build.bytes_per_rating),
        Cell(build.modelled.binds),
        Cell(f"{build.modelled.dram_fraction:.3g}", build.modelled.dram_fraction),
        Cell("yes" if build.ok else printable(f"no: {build.reason}")),
        Cell(_named_numbers(mix)),
        Cell(_named_numbers(clocks)),
        Cell(_named_numbers({launch.name: launch.registers for launch in build.beside})),
    )
    return Row(cells, not build.ok, "")


def _named_numbers(named: dict[str, Any]) -> str:
    """List numbers by name; numbers by width are added up."""
    totals = {name: sum(v.values()) if isinstance(v, dict) else v for name, v in named.items()}
    return ", ".join(f"{name} {_text(value)}" for name, value in totals.items() if value)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return "" if value is None else str(value)


def environment(results: Sequence[RunResult]) -> list[tuple[str, list[str]]]:
    """Return the properties of the environments, each with its values in the order of the runs."""
    found: dict[str, dict[str, None]] = {}
    for result in results:
        for name, value in _flat(result.measurement.env):
            found.setdefault(name, {})[value] = None
    return [(printable(name), [printable(value) for value in values]) for name, values in found.items()]


def _flat(env: Mapping[str, Any]) -> list[tuple[str, str]]:
    flat = []
    for name, value in env.items():
        if isinstance(value, dict) and name not in MOMENTARY:
            flat += [(str(part), str(inner)) for part, inner in value.items()]
        elif name.endswith("_bytes") and isinstance(value, int):
            flat.append((name.removesuffix("_bytes"), size(value)))
        elif value is not None and name not in MOMENTARY:
            flat.append((str(name), str(value)))
    return flat
