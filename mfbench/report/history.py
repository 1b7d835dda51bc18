"""How the time of each case went from run to run, with steps marked."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from mfbench.report.evidence import Entry, Key
from mfbench.report.labels import case_labels, device_and_case, provider_label, seconds
from mfbench.report.style import MOST_MARKS, Palette, Plot, figure, legend, marker
from mfbench.stats import changepoints

FEWEST = 3  # runs that make a history
MOST_FIGURES = 12  # those with steps first; the page draws the others from its data on demand


class Course(NamedTuple):
    """One provider on one case in the course of the runs."""

    key: Key
    entries: Sequence[Entry]
    steps: Sequence[changepoints.Step]  # `at` counts the entries

    @property
    def provider(self) -> str:
        return self.key[1]


def courses(histories: Mapping[Key, Sequence[Entry]], margin: float) -> list[Course]:
    """All that was measured in several runs, with the steps in its medians."""
    return [
        Course(key, entries, _steps(entries, margin)) for key, entries in histories.items() if len(entries) >= FEWEST
    ]


def _steps(entries: Sequence[Entry], margin: float) -> list[changepoints.Step]:
    timed = [(at, entry.measurement.median_s) for at, entry in enumerate(entries) if entry.measurement.median_s]
    found = changepoints.find(np.array([median for _, median in timed]), margin)
    return [step._replace(at=timed[step.at][0]) for step in found]


def plots(found: Sequence[Course]) -> list[Plot]:
    """A figure a case with all its providers: those with steps first, and no more than a page has room for."""
    by_case: dict[Any, list[Course]] = {}
    for course in found:
        by_case.setdefault((course.key[0], course.key[2]), []).append(course)
    ordered = sorted(by_case.items(), key=lambda item: not any(course.steps for course in item[1]))
    labels = case_labels(by_case)
    made = []
    for number, (case, together) in enumerate(ordered[:MOST_FIGURES], start=1):
        told = [f"{provider_label(c.provider)}: {describe(c, step)}" for c in together for step in c.steps]
        caption = f"{device_and_case(*case)}. {'; '.join(told) or 'No step'}."
        made.append(Plot(f"history-{number:02}", labels[case], caption, functools.partial(_draw, together)))
    return made


def describe(course: Course, step: changepoints.Step) -> str:
    """A step in words."""
    change = f"{step.ratio:.3g} times as long" if step.ratio > 1 else f"{1 / step.ratio:.3g} times as fast"
    return f"{change} from {course.entries[step.at].time[:16].replace('T', ' ')} on (run {step.at + 1})"


def _draw(together: Sequence[Course], palette: Palette) -> Figure:
    made, axes = figure(palette, 2.6)
    for number, course in enumerate(together):
        color = palette.of(number)
        medians = [entry.measurement.median_s or np.nan for entry in course.entries]
        mark = marker(number) if len(medians) <= MOST_MARKS else None
        axes.plot(range(len(medians)), medians, marker=mark, color=color, markersize=2.5, linewidth=1,
                  label=provider_label(course.provider))  # fmt: skip
        for step in course.steps:
            axes.axvline(step.at - 0.5, color=palette.bad if step.ratio > 1 else color, linewidth=1.2, linestyle="--")
        failed = [at for at, entry in enumerate(course.entries) if entry.measurement.median_s is None]
        if failed:
            axes.plot(failed, [0.04] * len(failed), "x", color=palette.bad, markersize=5, markeredgewidth=1.5,
                      transform=axes.get_xaxis_transform(), label="failed")  # fmt: skip
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: seconds(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    longest = max((course.entries for course in together), key=len)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda at, _: longest[int(at)].time[:10] if 0 <= at < len(longest) else "")
    )
    legend(made, axes, palette)
    return made
