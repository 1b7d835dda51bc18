"""Tables in a terminal: measurements of a run, and the layout that all commands share."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

from rich.console import Console, ConsoleOptions, Group, JustifyMethod, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from mfbench.report.derived import error_over_bound, gemm_fraction, half_width, undecided
from mfbench.report.labels import interval, percent, seconds, short, size
from mfbench.results.records import Record, Roofline, Speedup

NARROW_NAME = 16  # characters of a provider's name before it is folded on a narrow console
STYLE = {"faster": "green", "slower": "red", "same": "cyan", "inconclusive": "yellow"}
LEFT = ("provider", "verdict", "rank", "precision", "tile")  # columns of words; others are aligned to the right


class Output(Console):
    """Standard output. A closed pipe raises, as with any stream; rich would exit with 1, which is a verdict here."""

    def __init__(self) -> None:
        super().__init__(highlight=False)

    def on_broken_pipe(self) -> None:
        raise  # the BrokenPipeError that rich is handling


class Block(NamedTuple):
    """A table under a title, if it has one. A row of two cells is a name and a status."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Text]]
    remarks: Sequence[str]


class Fitted:
    """Blocks as tables if the console is wide enough, perhaps with folded names, or else a paragraph for each row."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self.blocks = blocks

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterable[RenderableType]:
        for block, body in zip(self.blocks, self._bodies(console, options), strict=True):
            if block.title:
                yield Text(f"\n{block.title}", style="bold")
            yield body
            if block.remarks:
                yield Text("\n".join(f"  {remark}" for remark in block.remarks), style="dim")

    def _bodies(self, console: Console, options: ConsoleOptions) -> Sequence[RenderableType]:
        unlimited = options.update(width=sys.maxsize)
        firsts = [str(first) for block in self.blocks for first in (block.columns[0], *(row[0] for row in block.rows))]
        longest = max(map(len, firsts), default=0)
        for width, narrow in ((longest, False), (min(longest, NARROW_NAME), True)):
            grids = [_grid(block, width, narrow) for block in self.blocks]
            if all(Measurement.get(console, unlimited, grid).maximum <= options.max_width for grid in grids):
                return grids
        return [Group(*_paragraphs(block)) for block in self.blocks]


def _grid(block: Block, name_width: int, narrow: bool) -> Table:
    """Return a table whose first column folds at a width; a narrow one puts intervals on a second line."""
    grid = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    for number, column in enumerate(block.columns):
        side: JustifyMethod = "left" if column in LEFT else "right"
        grid.add_column(column, justify=side, overflow="fold", width=None if number else name_width)
    for name, *cells in block.rows:
        grid.add_row(name, *(Text("\n[").join(cell.split(" [")) if narrow else cell for cell in cells))
    return grid


def _paragraphs(block: Block) -> Iterable[Text]:
    for name, *cells in block.rows:
        columns = block.columns[1:] if len(cells) > 1 else ("",)
        named = [(column, cell) for column, cell in zip(columns, cells, strict=True) if str(cell)]
        parts = [Text.assemble((f"{column} " if column else "", "dim"), cell) for column, cell in named]
        named_by = () if block.columns[0] == "provider" else ((f"{block.columns[0]} ", "dim"),)
        yield Text.assemble(*named_by, name, ": ", Text(" · ").join(parts))


def table(records: Sequence[Record]) -> RenderableType:
    """Return the table of a run: a block for each case, a row for each provider."""
    groups = groupby(records, key=lambda record: (record.case, record.device))
    return Fitted([_block(list(group)) for _, group in groups])


def _block(records: Sequence[Record]) -> Block:
    first = records[0]
    baselines = sorted({short(record.speedup.baseline) for record in records if record.speedup})
    ratio = f"× {', '.join(baselines)}" if baselines else "×"
    return Block(
        f"{first.case.label} · {first.device}",
        ("provider", "median", "±", ratio, "verdict", "error", "peak", "GEMM"),
        [_row(record) for record in records],
        [f"{short(record.provider)}: {remark}" for record in records if (remark := _remark(record))],
    )


def _remark(record: Record) -> str:
    """Return why a measurement failed, or what an inconclusive one would need."""
    return (undecided(record) if record.status == "ok" else record.reason) or ""


def _row(record: Record) -> Sequence[Text]:
    name = Text(short(record.provider))
    if record.timing is None or record.status != "ok":
        return name, Text(record.status, style="yellow" if record.status in ("skipped", "oom") else "red")
    half, error = half_width(record), error_over_bound(record)
    return (
        name,
        Text(seconds(record.timing.median_s)),
        Text("" if half is None else percent(half)),
        *_speedup(record.provider, record.speedup),
        Text("" if error is None else f"{error:.2f}"),
        Text(size(record.peak_bytes)),
        Text(_gemm(record)),
    )


def _speedup(provider: str, speedup: Speedup | None) -> tuple[Text, Text]:
    if speedup is None:
        return Text(), Text()
    if speedup.baseline == provider:
        return Text("1"), Text("baseline", style="dim")
    return Text(f"{speedup.ratio:.3g} {interval(*speedup.ci95)}"), Text(speedup.verdict, style=STYLE[speedup.verdict])


def _gemm(record: Record) -> str:
    fraction = gemm_fraction(record)
    if fraction is None or record.roofline is None:
        return ""
    return f"{fraction:.0%}" + ("!" if record.roofline.fraction > 1 else "")


def legend(records: Sequence[Record]) -> str:
    """Explain the columns, and name the machine."""
    ok = [record for record in records if record.status == "ok"]
    if not ok:
        return ""
    env, roofline = ok[0].env, ok[0].roofline
    assert roofline is not None
    machine = env.get("gpu") if ok[0].device != "cpu" else f"{env['cpu']}, {env['threads']} threads"
    gemm = f"{roofline.gemm_flops_per_s / 1e9:.0f} GFLOP/s, measured"
    return (
        "\n±: half the 95 % interval of the median. error: the largest error of the outputs, 1 = its bound. peak: "
        "memory beyond inputs and outputs. GEMM: 6 k operations for each place of a dense matrix, or for each sparse "
        "rating, over the median, relative to PyTorch's rate for a "
        f"square product ({gemm}{_peak(roofline)}); it may exceed 100 %, since that product may be far from the peak "
        f"and unobserved ratings may be skipped.{_verdicts(ok)}{_disturbances(ok)} {machine}"
    )


def _peak(roofline: Roofline) -> str:
    peak = roofline.peak_flops_per_s
    return f", of {peak / 1e9:.0f} that the vector units can do" if peak else ""


def _verdicts(records: Sequence[Record]) -> str:
    judged = [record.speedup for record in records if record.speedup and record.speedup.baseline != record.provider]
    if not judged:
        return ""
    ratio = " ×: the median of the ratios within each round, which may differ from the ratio of the medians."
    family = max(speedup.family for speedup in judged)
    if family < 2:
        return ratio
    return f"{ratio} verdict: all {family} hold jointly at 95 %, so each uses a wider interval than the printed one."


def _disturbances(records: Sequence[Record]) -> str:
    """Describe what interfered with the measurements."""
    parts = []
    timings = [record.timing for record in records if record.timing]
    disturbed, rounds = sum(timing.disturbed or 0 for timing in timings), sum(timing.rounds for timing in timings)
    if disturbed > rounds / 10:
        parts.append(f" Other programs kept the machine busy in {disturbed / rounds:.0%} of the rounds.")
    if crowded := sum(record.crowding is not None for record in records):
        parts.append(
            f" Other programs disturbed at least half of the rounds of {crowded} of {len(timings)} measurements: "
            "there, only a factor that they cannot have caused is a verdict."
        )
    if dropped := sum(timing.dropped or 0 for timing in timings):
        parts.append(f" {dropped} rounds were replaced because other programs ran.")
    if throttled := sum(timing.throttled or 0 for timing in timings):
        parts.append(f" {throttled} rounds were measured again because heat or power limited the device.")
    if any(record.roofline and record.roofline.fraction > 1 for record in records):
        parts.append(" !: faster than the machine allows; a ceiling was measured too low, or work was skipped.")
    return "".join(parts)
