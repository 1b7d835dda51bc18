"""Figures: the efficiency of strong and of weak scaling over the number of processes."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from mfbench.report.labels import provider_label
from mfbench.report.scaling import Series, all_series
from mfbench.report.style import Numbers, Palette, Plot, figure, legend, marker
from mfbench.results.records import Record, ScalingKind

FEWEST = 2  # numbers of processes for a curve
SPREAD = 1.02  # ratio by which providers at one number of processes are drawn apart
MEANING = {
    "strong": "one process's time over W times that of W processes on the same problem",
    "weak": "one process's time over that of W processes with as many users each",
}


def plots(records: Sequence[Record], numbers: Numbers) -> list[Plot]:
    """Return a figure for strong and one for weak scaling, where records have them."""
    found: dict[ScalingKind, Series] = {}
    for series in all_series(records):
        longest = found.get(series.kind)
        if _counts(series) >= FEWEST and (longest is None or _counts(series) > _counts(longest)):
            found[series.kind] = series
    return [_plot(series, numbers) for series in found.values()]


def _counts(series: Series) -> int:
    return len({record.case.processes for record in series.records if record.timing and record.group})


def _plot(series: Series, numbers: Numbers) -> Plot:
    case = series.case.model_copy(update={"processes": None})
    each = " for each process" if series.kind == "weak" else ""
    caption = (
        f"Efficiency over the number of processes W, {case.label}{each}: {MEANING[series.kind]}, with 95 % intervals. "
        "Dashed: the model's, from rates measured in the same launches."
    )
    title = f"{series.kind.capitalize()} scaling"
    return Plot(f"{series.kind}-scaling", title, caption, functools.partial(_draw, series, numbers))


def _draw(series: Series, numbers: Numbers, palette: Palette) -> Figure:
    made, axes = figure(palette, 3.8)
    measured = [record for record in series.records if record.timing and record.group]
    names = list(dict.fromkeys(record.provider for record in measured))
    for place, name in enumerate(names):
        number, own = numbers[name], [record for record in measured if record.provider == name]
        shift = SPREAD ** (place - (len(names) - 1) / 2)
        points = [(shift * (record.case.processes or 1), *_efficiency(record)) for record in own]
        x, y, low, high = zip(*points, strict=True)
        axes.errorbar(
            x, y, yerr=[low, high], fmt=f"{marker(number)}-", color=palette.of(number), markersize=4, linewidth=1.4,
            capsize=2.5, label=provider_label(name),
        )  # fmt: skip
        if predicted := _predicted(own, series.kind):
            axes.plot(*zip(*predicted, strict=True), color=palette.of(number), linestyle="--", linewidth=1.2,
                      label=f"{provider_label(name)}, model")  # fmt: skip
    axes.axhline(1, color=palette.muted, linestyle=":", linewidth=1)
    counts = sorted({record.case.processes for record in measured if record.case.processes})
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("processes (log scale)")
    axes.set_ylabel("efficiency")
    legend(made, axes, palette)
    return made


def _efficiency(record: Record) -> tuple[float, float, float]:
    """Return the efficiency, and the lengths of its error bar downwards and upwards."""
    scaling = record.scaling
    if scaling is None:  # one process
        return 1.0, 0.0, 0.0
    low, high = scaling.efficiency_ci95
    middle = scaling.efficiency
    return middle, max(0.0, middle - (middle if low is None else low)), max(0.0, (high or middle) - middle)


def _predicted(records: Sequence[Record], kind: ScalingKind) -> list[tuple[int, float]]:
    """Return the model's efficiency by number of processes; empty where one process has no prediction."""
    found = {r.case.processes: r.group.predicted_s for r in records if r.case.processes and r.group}
    one = found.get(1)
    if one is None:
        return []
    return [(count, one / seconds / (count if kind == "strong" else 1)) for count, seconds in found.items() if seconds]
