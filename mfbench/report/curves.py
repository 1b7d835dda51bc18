"""Figures on two logarithmic axes: time over size, and the roofline."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from mfbench.problems.cases import Case
from mfbench.report.labels import provider_label, seconds
from mfbench.report.style import MOST_MARKS, Numbers, Palette, Plot, apart, figure, legend, marker, plain_log
from mfbench.results.records import Record

FEWEST_SIZES = 3  # for an exponent


def scaling(records: Sequence[Record], numbers: Numbers) -> Plot:
    """Plot the median time over the size, for the longest series of otherwise identical cases.

    The size is the number of ratings: all places of a dense matrix, the observed ones of a sparse one.
    """
    series: dict[Any, list[Record]] = {}
    for record in (r for r in records if r.timing and r.roofline and r.case.m * r.case.n):
        alike = record.case.model_copy(update={"m": 0, "n": 0})
        series.setdefault((alike, record.device), []).append(record)
    taken = max(series.values(), key=lambda group: len({_ratings(r) for r in group}), default=[])
    title = "Time over size"
    if len({_ratings(r) for r in taken}) < FEWEST_SIZES:
        reason = f"Needs {FEWEST_SIZES} timed cases that differ only in size."
        return Plot("time-over-size", title, reason, None)
    case = taken[0].case
    caption = (
        f"Median time of a step over {_axis(case)}, rank {case.rank}, {case.ratings_dtype}, with the exponent of a "
        "power law fitted to each provider's medians, ± its standard error. Floor: the time of the products at the "
        "measured rate of multiply-adds, or of the bytes at the measured bandwidth, whichever is longer."
    )
    return Plot("time-over-size", title, caption, functools.partial(_draw_scaling, taken, numbers))


def _ratings(record: Record) -> int:
    return record.case.expected_ratings if record.case.sparse else record.case.m * record.case.n


def _axis(case: Case) -> str:
    return "observed ratings" if case.sparse else "ratings m·n"


def exponent(sizes: Sequence[float], medians: Sequence[float]) -> tuple[float, float]:
    """Return the slope of log time over log size by least squares, and its standard error."""
    x, y = np.log(sizes), np.log(medians)
    design = x - x.mean()
    slope = float(design @ y / (design @ design))
    residuals = y - y.mean() - slope * design
    return slope, math.sqrt(float(residuals @ residuals) / max(1, len(x) - 2) / float(design @ design))


def _draw_scaling(taken: Sequence[Record], numbers: Numbers, palette: Palette) -> Figure:
    made, axes = figure(palette, 4.2)
    for provider in dict.fromkeys(r.provider for r in taken):
        points = sorted((_ratings(r), r.timing.median_s) for r in taken if r.provider == provider and r.timing)
        number = numbers[provider]
        label = provider_label(provider)
        if len({x for x, _ in points}) >= FEWEST_SIZES:
            slope, error = exponent(*zip(*points, strict=True))
            label += f": exponent {slope:.2f} ± {error:.2f}"
        axes.plot(*zip(*points, strict=True), color=palette.of(number), linewidth=1.4, label=label,
                  marker=marker(number) if len(points) <= MOST_MARKS else None, markersize=4.5)  # fmt: skip
    floors = sorted({
        (_ratings(r), r.roofline.fraction * r.timing.median_s) for r in taken if r.roofline and r.timing
    })  # fmt: skip
    axes.plot(*zip(*floors, strict=True), color=palette.muted, linestyle="--", linewidth=1.2, label="floor")
    axes.set_xscale("log")
    axes.set_yscale("log")
    sizes = [x for x, _ in floors]
    if sizes[-1] < 30 * sizes[0]:
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _count(value)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: seconds(value)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(f"{_axis(taken[0].case)} (log scale)")
    axes.set_ylabel("seconds per step (log scale)")
    _legend_in_columns(made, axes, palette)
    return made


def _legend_in_columns(made: Figure, axes: Any, palette: Palette) -> None:
    made.legend(
        *axes.get_legend_handles_labels(), loc="outside upper left", ncols=2, labelcolor=palette.ink, fontsize=8.5
    )


def _count(value: float) -> str:
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= scale:
            return f"{value / scale:g} {unit}"
    return f"{value:g}"


def roofline(records: Sequence[Record], numbers: Numbers) -> Plot:
    """Plot the rate of arithmetic over its intensity, below the ceilings that were measured."""
    taken = [r for r in records if r.roofline and r.rates and r.rates.flops_per_s > 0]
    title = "Roofline"
    if not taken:
        return Plot("roofline", title, "No record has rates and ceilings.", None)
    caption = (
        "Arithmetic of a step over its minimum traffic (ratings, mask and parameters once), below ceilings measured in "
        "the same run: the rate of float32 multiply-adds (of a square product where only that was measured), and the "
        "bandwidth of working sets of the cases' sizes (the band spans them, since small ones fit into a cache)."
    )
    return Plot("roofline", title, caption, functools.partial(_draw_roofline, taken, numbers))


def _draw_roofline(taken: Any, numbers: Numbers, palette: Palette) -> Figure:
    made, axes = figure(palette, 4.2)
    intensities = [r.rates.flops_per_s / r.rates.bytes_per_s for r in taken]
    for name in dict.fromkeys(r.provider for r in taken):
        number = numbers[name]
        points = [(x, r.rates.flops_per_s / 1e9) for x, r in zip(intensities, taken, strict=True) if r.provider == name]
        axes.plot(*zip(*apart(points), strict=True), marker(number), markersize=5,
                  linestyle="none", color=palette.of(number), label=provider_label(name))  # fmt: skip
    peak = max(r.roofline.peak_flops_per_s or r.roofline.gemm_flops_per_s for r in taken) / 1e9
    low, high = (pick(r.roofline.copy_bytes_per_s for r in taken) / 1e9 for pick in (min, max))
    x = np.geomspace(min(min(intensities) / 2, peak / high / 4), max(intensities) * 2, 200)
    slow, fast = np.minimum(peak, low * x), np.minimum(peak, high * x)
    axes.fill_between(x, slow, fast, color=palette.muted, alpha=0.15, linewidth=0)
    axes.plot(x, slow, color=palette.muted, linewidth=1.2, label=f"{peak:.3g} GFLOP/s; {low:.3g} GB/s")
    axes.plot(x, fast, color=palette.muted, linewidth=1.2, linestyle="--", label=f"{high:.3g} GB/s")
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        plain_log(axis, "{:g}")
    axes.set_xlabel("FLOP per byte (log scale)")
    axes.set_ylabel("GFLOP/s (log scale)")
    legend(made, axes, palette)
    return made
