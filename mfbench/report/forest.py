"""Forest plots: ratios with their intervals, one row for each case."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.figure import Figure

from mfbench.report.labels import Place, case_labels, cut, provider_label
from mfbench.report.style import FRAME, ROW, Numbers, Palette, Plot, figure, legend, marker, plain_log, rows_axis
from mfbench.results.comparison import Comparison

MOST_ROWS = 30  # cases in a figure; the tables have all


class Ratio(NamedTuple):
    """A speed-up; an end of its interval that is None or 0 is unknown."""

    row: int
    provider: str
    ratio: float
    low: float | None
    high: float | None


def draw(ratios: Sequence[Ratio], labels: Sequence[str], numbers: Numbers, palette: Palette) -> Figure:
    """Draw points with error bars on a logarithmic axis, the providers of a case next to each other."""
    names = list(dict.fromkeys(ratio.provider for ratio in ratios))
    made, axes = figure(palette, FRAME + ROW * len(labels) * max(1.3, len(names)))
    for row, provider, ratio, low, high in ratios:
        number, place = numbers[provider], names.index(provider)
        axes.errorbar(
            ratio, row + (place - (len(names) - 1) / 2) * 0.7 / len(names),
            xerr=[[max(0, ratio - (low or ratio))], [max(0, (high or ratio) - ratio)]], fmt=marker(number),
            color=palette.of(number), markersize=4, linewidth=1.4, capsize=2.5, label=provider_label(provider),
        )  # fmt: skip
    axes.axvline(1, color=palette.muted, linestyle="--", linewidth=1)
    axes.set_xscale("log")
    ends = [end for ratio in ratios for end in ratio[2:] if end]
    axes.set_xlim(min(0.9, min(ends) / 1.15), max(1.1, max(ends) * 1.15))
    plain_log(axes.xaxis, "{:g}×")
    axes.set_xlabel("times as fast (log scale)")
    rows_axis(axes, labels)
    legend(made, axes, palette)
    return made


def of_comparison(comparison: Comparison) -> Plot:
    """Plot the speed-ups of the new side of a comparison."""
    title = "Comparison"
    cases = list(dict.fromkeys(Place(pair.new.case, pair.new.device) for pair in comparison.pairs if pair.ratio))
    if not cases:
        return Plot("comparison", title, "Nothing was timed on both sides.", None)
    rows = {case: row for row, case in enumerate(cases[:MOST_ROWS])}
    labels = case_labels(rows)
    ratios = []
    for pair in comparison.pairs:
        row = rows.get(Place(pair.new.case, pair.new.device))
        if pair.ratio and row is not None:
            low, high = pair.ratio.low, pair.ratio.high if math.isfinite(pair.ratio.high) else None
            ratios.append(Ratio(row, pair.new.provider, pair.ratio.estimate, low, high))
    numbers = {name: number for number, name in enumerate(dict.fromkeys(ratio.provider for ratio in ratios))}
    more = f" The first {MOST_ROWS} of {len(cases)} cases; the table has all." if len(cases) > MOST_ROWS else ""
    named = [cut(labels[case]) for case in rows]
    return Plot("comparison", title, f"Speed-up over the base.{more}",
                functools.partial(draw, ratios, named, numbers))  # fmt: skip
