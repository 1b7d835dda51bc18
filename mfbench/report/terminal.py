"""Records as a table that a person can read in a terminal."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Sequence
from itertools import groupby

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from mfbench.results.records import Record, Roofline, Speedup

WIDEST = 1000.0  # an interval whose ends are farther apart says nothing
NARROW_NAME, NARROW_RATIO = 12, 16  # characters: what is longer takes two lines where the console is narrow
VERDICT_STYLE = {"faster": "green", "slower": "red", "same": "cyan", "inconclusive": "yellow"}


class Fitted:
    """The first of two forms where the console is wide enough for it, else the second."""

    def __init__(self, wide: RenderableType, narrow: RenderableType) -> None:
        self.wide, self.narrow = wide, narrow

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterable[RenderableType]:
        needed = Measurement.get(console, options.update(width=sys.maxsize), self.wide).maximum
        yield self.wide if needed <= options.max_width else self.narrow


def table(records: Sequence[Record]) -> RenderableType:
    """One block a case: what was compared, then a line a provider, or two where the console is narrow."""
    by_case = [list(group) for _, group in groupby(records, key=lambda record: (record.case, record.device))]
    return Fitted(*(_blocks(by_case, stacked) for stacked in (False, True)))


def _blocks(by_case: Sequence[Sequence[Record]], stacked: bool) -> RenderableType:
    names = [_name(record.provider, stacked) for group in by_case for record in group]
    width = max((len(line) for name in names for line in name.split("\n")), default=0)
    return Group(*(part for group in by_case for part in _block(group, width, stacked)))


def _name(provider: str, stacked: bool) -> str:
    """A provider's name; a long one of a file has its function on a line of its own where it is stacked."""
    name = short(provider)
    return name.replace(".py:", ".py\n:") if stacked and len(name) > NARROW_NAME else name


def _block(records: Sequence[Record], name_width: int, stacked: bool) -> Iterable[RenderableType]:
    first = records[0]
    baselines = {record.speedup.baseline for record in records if record.speedup}
    yield Text(f"\n{first.case.label} · {first.device}", style="bold")
    grid = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    grid.add_column("provider", min_width=min(name_width, NARROW_NAME) if stacked else name_width, overflow="fold")
    grid.add_column("median", justify="right", min_width=8, no_wrap=True)
    grid.add_column("±", justify="right", min_width=4, no_wrap=True)
    grid.add_column(
        _baselines(baselines, stacked), justify="right", min_width=NARROW_RATIO if stacked else 18, no_wrap=True
    )
    grid.add_column("verdict", min_width=12, no_wrap=True)
    grid.add_column("error", justify="right", no_wrap=True)
    grid.add_column("peak", justify="right", min_width=7, no_wrap=True)
    grid.add_column("GEMM", justify="right", min_width=5, no_wrap=True)
    problems = []
    for record in records:
        name = Text(_name(record.provider, stacked))
        if record.status != "ok":
            grid.add_row(name, Text(record.status, style="yellow" if record.status in ("skipped", "oom") else "red"))
            problems.append(f"  {short(record.provider)}: {record.reason}")
            continue
        assert record.timing is not None
        half, error = half_width(record), error_over_bound(record)
        grid.add_row(
            name,
            seconds(record.timing.median_s),
            "" if half is None else _percent(half),
            *_speedup(record.provider, record.speedup, stacked),
            "" if error is None else f"{error:.2f}",
            size(record.peak_bytes),
            _gemm(record),
        )
    yield grid
    if problems:
        yield Text("\n".join(problems), style="dim")


def legend(records: Sequence[Record]) -> str:
    """What the columns mean, and the machine."""
    ok = [record for record in records if record.status == "ok"]
    if not ok:
        return ""
    env, roofline = ok[0].env, ok[0].roofline
    assert roofline is not None
    machine = env.get("gpu") if ok[0].device != "cpu" else f"{env['cpu']}, {env['threads']} threads"
    gemm = f"{roofline.gemm_flops_per_s / 1e9:.0f} GFLOP/s, measured"
    return (
        "\n±: 95 % interval of the median. error: the largest of the outputs' errors, 1 = its bound. peak: memory "
        "beyond inputs and outputs. GEMM: 6 m n k operations over the median, as a "
        f"fraction of PyTorch's rate in a square product ({gemm}{_peak(roofline)}); it may be passed: where that "
        "product is far from what they can do, and where unobserved ratings are skipped."
        f"{_verdicts(ok)}{_troubles(ok)} {machine}"
    )


def _peak(roofline: Roofline) -> str:
    peak = roofline.peak_flops_per_s
    return f", of {peak / 1e9:.0f} that the vectors can do" if peak else ""


def half_width(record: Record) -> float | None:
    """Half the 95 % interval of the median, relative to it; None where there is no interval."""
    if record.timing is None or None in record.timing.ci95_s:
        return None
    low, high = record.timing.ci95_s
    return (high - low) / 2 / record.timing.median_s  # type: ignore[operator]


def error_over_bound(record: Record) -> float | None:
    """The largest of the outputs' errors, 1 = its bound; None where the gate was not reached."""
    if not record.correctness:
        return None
    return max((c.error or 0) / c.bound if c.bound else 0 for c in record.correctness.values())


def _verdicts(records: Sequence[Record]) -> str:
    judged = [record.speedup for record in records if record.speedup and record.speedup.baseline != record.provider]
    if not judged:
        return ""
    ratio = " ×: the median of the ratios within each round, which need not be the ratio of the medians."
    family = max(speedup.family for speedup in judged)
    if family < 2:
        return ratio
    return f"{ratio} verdict: all {family} hold together at 95 %, so each is by a wider interval than the one printed."


def _troubles(records: Sequence[Record]) -> str:
    """What was not as it should be while the records were taken."""
    parts = []
    timings = [record.timing for record in records if record.timing]
    disturbed, rounds = sum(timing.disturbed or 0 for timing in timings), sum(timing.rounds for timing in timings)
    if disturbed > rounds / 10:
        parts.append(f" Other programs kept the machine busy in {disturbed / rounds:.0%} of the rounds.")
    if busy := sum(timing.busy for timing in timings):
        parts.append(
            f" Other programs ran in half of the rounds or more of {busy} of {len(timings)} measurements: there only a "
            "factor of 2 is a verdict."
        )
    if dropped := sum(timing.dropped or 0 for timing in timings):
        parts.append(f" {dropped} rounds were dropped and others taken, since other programs ran.")
    if throttled := sum(timing.throttled or 0 for timing in timings):
        parts.append(f" {throttled} rounds were timed again: heat or power held the device back.")
    if any(record.roofline and record.roofline.fraction > 1 for record in records):
        parts.append(
            " !: faster than the machine allows: a ceiling was measured too low, or not all the work was done."
        )
    return "".join(parts)


def seconds(value: float) -> str:
    """A time with three digits and its unit."""
    value = float(f"{value:.3g}")  # else 999.6 µs would be 1e+03 µs
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}" if value < 1000 * scale else f"{value / scale:.0f} {unit}"
    return f"{value / 1e-9:.3g} ns"


def size(value: int | None) -> str:
    """A size in binary units; a dash where it could not be measured."""
    if value is None:
        return "–"
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024  # type: ignore[assignment]
    return f"{value:.1f} GiB"


def _percent(fraction: float) -> str:
    if fraction > 9.99:
        return ">999%"
    return f"{fraction:.1%}" if fraction < 0.0995 else f"{fraction:.0%}"


def _baselines(names: Collection[str], stacked: bool) -> Text:
    separator = ",\n" if stacked else ", "
    return Text(f"× {separator.join(_name(name, stacked) for name in sorted(names))}" if names else "")


def _speedup(provider: str, speedup: Speedup | None, stacked: bool) -> tuple[RenderableType, RenderableType]:
    if speedup is None:
        return "", ""
    if speedup.baseline == provider:
        return "1", Text("baseline", style="dim")
    ratio = f"{speedup.ratio:.3g}{_interval(*speedup.ci95)}"
    if stacked and len(ratio) > NARROW_RATIO:
        ratio = ratio.replace(" [", "\n[")
    return Text(ratio), Text(speedup.verdict, style=VERDICT_STYLE[speedup.verdict])


def _interval(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return " [too few rounds]"
    return f" [{low:.3g}, {high:.3g}]" if high < WIDEST * low else " [too noisy]"


def gemm_fraction(record: Record) -> float | None:
    """The operations on the whole matrix a second over PyTorch's GEMM rate; None where there is no timing."""
    if record.rates is None or record.roofline is None:
        return None
    return record.rates.flops_per_s / record.roofline.gemm_flops_per_s


def _gemm(record: Record) -> str:
    fraction = gemm_fraction(record)
    if fraction is None or record.roofline is None:
        return ""
    return f"{fraction:.0%}" + ("!" if record.roofline.fraction > 1 else "")


def short(provider: str) -> str:
    """A provider from a file without its folders."""
    path, colon, function = provider.partition(".py:")
    return path.rpartition("/")[2] + colon + function if colon else provider
