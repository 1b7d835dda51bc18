"""The raw samples of each case as a separate figure; the page draws them on demand instead."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from mfbench.report.evidence import RunResult
from mfbench.report.labels import Place, full_name, provider_label, seconds
from mfbench.report.style import Draw, Palette, Plot, figure, legend


def plots(latest: Sequence[RunResult]) -> Iterable[Plot]:
    """Yield a figure for each case."""
    by_place: dict[Place, list[RunResult]] = {}
    for result in latest:
        if isinstance(result.measurement.samples, np.ndarray):
            by_place.setdefault(result.place, []).append(result)
    for number, (place, results) in enumerate(by_place.items(), start=1):
        yield Plot(f"samples-{number:03}", full_name(*place), "", strip(results))


def strip(results: Sequence[RunResult]) -> Draw:
    """Return a drawing of the raw samples of a case in the order measured, one line for each provider."""

    def draw(palette: Palette) -> Figure:
        made, axes = figure(palette, 3.0)
        for number, result in enumerate(results):
            samples = np.asarray(result.measurement.samples)
            axes.plot(range(len(samples)), samples, ".-", color=palette.of(number), linewidth=0.5, markersize=4,
                      label=provider_label(result.measurement.provider))  # fmt: skip
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: seconds(value)))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("round")
        axes.set_ylabel("seconds per step")
        legend(made, axes, palette)
        return made

    return draw
