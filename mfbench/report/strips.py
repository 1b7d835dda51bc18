"""The raw samples of a case as a figure of its own; the page draws them itself, on demand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from mfbench.report.evidence import Entry
from mfbench.report.labels import device_and_case, provider_label, seconds
from mfbench.report.style import Draw, Palette, Plot, figure, legend


def plots(latest: Sequence[Entry]) -> Iterable[Plot]:
    """A figure a case."""
    by_case: dict[Any, list[Entry]] = {}
    for entry in latest:
        if isinstance(entry.measurement.samples, np.ndarray):
            by_case.setdefault((entry.measurement.case, entry.measurement.device), []).append(entry)
    for number, (case, entries) in enumerate(by_case.items(), start=1):
        yield Plot(f"samples-{number:03}", device_and_case(*case), "", strip(entries))


def strip(entries: Sequence[Entry]) -> Draw:
    """The raw samples of a case in the order in which they were taken, a line a provider."""

    def draw(palette: Palette) -> Figure:
        made, axes = figure(palette, 3.0)
        for number, entry in enumerate(entries):
            samples = np.asarray(entry.measurement.samples)
            axes.plot(range(len(samples)), samples, ".-", color=palette.of(number), linewidth=0.5, markersize=4,
                      label=provider_label(entry.measurement.provider))  # fmt: skip
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: seconds(value)))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("round")
        axes.set_ylabel("seconds a step")
        legend(made, axes, palette)
        return made

    return draw
