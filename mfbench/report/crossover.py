"""Figure: time over the observed fraction in both layouts, and the fraction at which they are equally fast."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from mfbench.report.labels import provider_label, seconds
from mfbench.report.style import Numbers, Palette, Plot, figure, legend, marker
from mfbench.results.records import Record

NAME, TITLE = "time-over-density", "Time over density"


def applies(records: Sequence[Record]) -> bool:
    """Return whether some cases differ only in density and layout, with both layouts at two densities or more."""
    return bool(_taken(records))


def density(records: Sequence[Record], numbers: Numbers) -> Plot:
    """Plot the median time over the observed fraction, dense and sparse; `applies` says whether there is something."""
    taken = _taken(records)
    case, fraction = taken[0].case, crossover(*(_fastest(taken, layout) for layout in ("dense", "sparse")))
    found = (
        f"The fastest providers of both layouts take equally long at {fraction:.0%} observed."
        if fraction is not None
        else "One layout is faster at every density."
    )
    caption = f"Median time of a step, {case.m}×{case.n}, rank {case.rank}, {case.ratings_dtype}. {found}"
    return Plot(NAME, TITLE, caption, functools.partial(_draw, taken, numbers, fraction))


def crossover(dense: Mapping[float, float], sparse: Mapping[float, float]) -> float | None:
    """Return the density at which sparse ratings cease to be faster, interpolated on logarithmic axes.

    Args:
        dense: seconds by density.
        sparse: the same.

    Returns:
        The lowest such density; None where the sparse layout is slower at the lowest one, or faster at all.
    """
    at = sorted(dense.keys() & sparse.keys())
    gain = [math.log(dense[density] / sparse[density]) for density in at]
    for (low, above), (high, below) in pairwise(zip(at, gain, strict=True)):
        if above > 0 >= below:
            return float(low * (high / low) ** (above / (above - below)))
    return None


def _taken(records: Sequence[Record]) -> list[Record]:
    """Return the records of the longest series of cases that differ in density, layout and mask alone."""
    series: dict[Any, list[Record]] = {}
    for record in (r for r in records if r.timing and r.case.density):
        alike = record.case.model_copy(update={"density": 1.0, "layout": "dense", "mask": "none"})
        series.setdefault((alike, record.device), []).append(record)
    enough = [group for group in series.values() if _in_both(group) >= 2]
    return max(enough, key=_in_both, default=[])


def _in_both(records: Sequence[Record]) -> int:
    """Return at how many densities there are both layouts."""
    dense, sparse = ({r.case.density for r in records if r.case.layout == layout} for layout in ("dense", "sparse"))
    return len(dense & sparse)


def _fastest(records: Sequence[Record], layout: str) -> dict[float, float]:
    found: dict[float, float] = {}
    for record in records:
        if record.case.layout == layout and record.timing:
            found[record.case.density] = min(record.timing.median_s, found.get(record.case.density, math.inf))
    return found


def _draw(taken: Sequence[Record], numbers: Numbers, fraction: float | None, palette: Palette) -> Figure:
    made, axes = figure(palette, 4.2)
    for provider in dict.fromkeys(r.provider for r in taken):
        for layout, line in (("dense", "-"), ("sparse", "--")):
            points = sorted(_fastest([r for r in taken if r.provider == provider], layout).items())
            if points:
                number, label = numbers[provider], f"{provider_label(provider)}, {layout}"
                axes.plot(*zip(*points, strict=True), color=palette.of(number), linewidth=1.4, linestyle=line,
                          marker=marker(number), markersize=4.5, label=label)  # fmt: skip
    if fraction is not None:
        axes.axvline(fraction, color=palette.muted, linewidth=1.2, linestyle=":", label=f"crossover: {fraction:.0%}")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: seconds(value)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("fraction observed (log scale)")
    axes.set_ylabel("seconds per step (log scale)")
    legend(made, axes, palette)
    return made
