"""Histories: the time of each case from run to run, with change points marked."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from mfbench.report.evidence import Key, RunResult
from mfbench.report.labels import Place, case_labels, full_name, provider_label, seconds
from mfbench.report.style import MOST_MARKS, Palette, Plot, figure, legend, marker
from mfbench.stats import changepoints
from mfbench.stats.changepoints import ChangePoint

FEWEST = 3  # runs that make a history
MOST_FIGURES = 12  # histories with a figure; the page draws the others on demand


class History(NamedTuple):
    """The results of one provider on one case, ordered by time."""

    key: Key
    results: Sequence[RunResult]
    changes: Sequence[ChangePoint]  # `at` is an index into the results

    @property
    def provider(self) -> str:
        """The provider's name."""
        return self.key[1]

    @property
    def place(self) -> Place:
        """The case and device."""
        return self.results[0].place


def histories(by_key: Mapping[Key, Sequence[RunResult]], margin: float) -> list[History]:
    """Return everything that was measured in several runs, with the change points of its medians."""
    return [
        History(key, results, _changes(results, margin)) for key, results in by_key.items() if len(results) >= FEWEST
    ]


def _changes(results: Sequence[RunResult], margin: float) -> list[ChangePoint]:
    timed = [(at, result.measurement.median_s) for at, result in enumerate(results) if result.measurement.median_s]
    found = changepoints.find(np.array([median for _, median in timed]), margin)
    return [change._replace(at=timed[change.at][0]) for change in found]


def plots(found: Sequence[History]) -> list[Plot]:
    """Return a figure for each case with all its providers; cases with changes come first."""
    by_place: dict[Place, list[History]] = {}
    for history in found:
        by_place.setdefault(history.place, []).append(history)
    ordered = sorted(by_place.items(), key=lambda item: not any(history.changes for history in item[1]))
    labels = case_labels(by_place)
    made = []
    for number, (place, together) in enumerate(ordered[:MOST_FIGURES], start=1):
        changes = [f"{provider_label(h.provider)}: {describe(h, change)}" for h in together for change in h.changes]
        caption = f"{full_name(*place)}. {'; '.join(changes) or 'No change'}."
        made.append(Plot(f"history-{number:02}", labels[place], caption, functools.partial(_draw, together)))
    return made


def describe(history: History, change: ChangePoint) -> str:
    """Describe a change point in words."""
    what = f"{change.ratio:.3g} times as long" if change.ratio > 1 else f"{1 / change.ratio:.3g} times as fast"
    return f"{what} from {history.results[change.at].time[:16].replace('T', ' ')} on (run {change.at + 1})"


def _draw(together: Sequence[History], palette: Palette) -> Figure:
    made, axes = figure(palette, 2.6)
    for number, history in enumerate(together):
        color = palette.of(number)
        medians = [result.measurement.median_s or np.nan for result in history.results]
        mark = marker(number) if len(medians) <= MOST_MARKS else None
        axes.plot(range(len(medians)), medians, marker=mark, color=color, markersize=2.5, linewidth=1,
                  label=provider_label(history.provider))  # fmt: skip
        for change in history.changes:
            axes.axvline(change.at - 0.5, color=palette.bad if change.ratio > 1 else color, linewidth=1.2,
                         linestyle="--")  # fmt: skip
        failed = [at for at, result in enumerate(history.results) if result.measurement.median_s is None]
        if failed:
            axes.plot(failed, [0.04] * len(failed), "x", color=palette.bad, markersize=5, markeredgewidth=1.5,
                      transform=axes.get_xaxis_transform(), label="failed")  # fmt: skip
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: seconds(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    longest = max((history.results for history in together), key=len)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda at, _: longest[int(at)].time[:10] if 0 <= at < len(longest) else "")
    )
    legend(made, axes, palette)
    return made
