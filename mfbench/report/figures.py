"""Figures of the newest results; those with one row for each case or output are drawn here."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from mfbench.report import crossover, curves, forest, scaling_curves
from mfbench.report.evidence import RunResult
from mfbench.report.labels import Place, case_labels, cut, printable, provider_label, size
from mfbench.report.style import FRAME, ROW, Numbers, Palette, Plot, apart, figure, legend, marker, rows_axis
from mfbench.results.records import Correctness, Record

LEAST_ERROR = 1e-4  # left end of the axis of errors, relative to the bound


def plots(results: Sequence[RunResult]) -> list[Plot]:
    """Return the figures of the newest results: speed-ups, time over size, density and processes, and the rest."""
    records = [result.record for result in results if result.record]
    numbers = {provider: number for number, provider in enumerate(dict.fromkeys(r.provider for r in records))}
    made = [_speedups(records, numbers)]
    if records:
        over_density = (crossover.density,) if crossover.applies(records) else ()
        made += [make(records, numbers) for make in (curves.scaling, *over_density, curves.roofline, _errors, _memory)]
        made += scaling_curves.plots(records, numbers)
    return made


def _rows(records: Sequence[Record]) -> tuple[dict[Any, int], list[str], str]:
    """Return the row of each case from the top, their labels, and a remark if some cases have no row."""
    places = {Place(record.case, record.device): record.case for record in records}
    cases = list(places)
    shown = (
        sorted(cases, key=lambda place: -places[place].m * places[place].n)[: forest.MOST_ROWS]
        if len(cases) > forest.MOST_ROWS
        else cases
    )
    rows = {case: row for row, case in enumerate(case for case in cases if case in set(shown))}
    labels = case_labels(rows)
    remark = (
        f" The {forest.MOST_ROWS} largest of {len(cases)} cases; the table has all."
        if len(cases) > forest.MOST_ROWS
        else ""
    )
    return rows, [cut(labels[case]) for case in rows], remark


def _speedups(records: Sequence[Record], numbers: Numbers) -> Plot:
    taken = [r for r in records if r.speedup and r.speedup.baseline != r.provider]
    title = "Speed-up"
    if not taken:
        return Plot("speedups", title, "No record has a speed-up over a baseline.", None)
    baselines = ", ".join(sorted({printable(r.speedup.baseline) for r in taken if r.speedup}))
    rows, labels, remark = _rows(taken)
    caption = f"Speed-up over {baselines}, with 95 % intervals; a mark without one had too few rounds.{remark}"
    ratios = [
        forest.Ratio(rows[r.case, r.device], r.provider, r.speedup.ratio, *r.speedup.ci95)
        for r in taken
        if r.speedup and (r.case, r.device) in rows
    ]
    return Plot("speedups", title, caption, functools.partial(forest.draw, ratios, labels, numbers))


def _errors(records: Sequence[Record], numbers: Numbers) -> Plot:
    taken = [r for r in records if r.correctness]
    title = "Error over bound"
    if not taken:
        return Plot("errors", title, "No record reached the gate.", None)
    caption = (
        "Largest error of each output relative to its bound, one mark for each case; right of the line the gate fails. "
        "A cross at the right edge is a result with an unexpected NaN or Inf."
    )
    return Plot("errors", title, caption, functools.partial(_draw_errors, taken, numbers))


def _draw_errors(taken: Any, numbers: Numbers, palette: Palette) -> Figure:
    names = list(dict.fromkeys(record.provider for record in taken))
    outputs = list(dict.fromkeys(output for record in taken for output in record.correctness))
    made, axes = figure(palette, FRAME + len(outputs) * max(0.3, 0.14 * len(names)))
    ratios = [c.error / c.bound for r in taken for c in r.correctness.values() if c.error and c.bound]
    right = max(10.0, max(ratios, default=1.0) * 3)
    for name in names:
        number, place = numbers[name], names.index(name)
        offset = (place - (len(names) - 1) / 2) * 0.7 / len(names)
        for good in (True, False):
            points = [
                (_place(c, right), row + offset)
                for r in taken if r.provider == name
                for row, output in enumerate(outputs)
                if (c := r.correctness.get(output)) and c.ok is good
            ]  # fmt: skip
            if points:
                axes.plot(
                    *zip(*apart(points), strict=True), marker(number) if good else "x", linestyle="none",
                    markersize=3.5 if good else 6, color=palette.of(number), alpha=0.6 if good else 1,
                    label=provider_label(name), markeredgewidth=0.5 if good else 1.8,
                )  # fmt: skip
    axes.axvline(1, color=palette.bad, linewidth=1.2)
    axes.set_xscale("log")
    axes.set_xlim(LEAST_ERROR / 1.5, right)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("error over bound (log scale)")
    rows_axis(axes, outputs)
    legend(made, axes, palette)
    return made


def _place(found: Correctness, right: float) -> float:
    if found.error is None:
        return right / 1.3
    return max(found.error / found.bound if found.bound else 1.0, LEAST_ERROR)


def _memory(records: Sequence[Record], numbers: Numbers) -> Plot:
    taken = [r for r in records if r.peak_bytes is not None]
    title = "Peak memory"
    if not taken:
        return Plot("memory", title, "No record has a peak, which cannot be measured on this system.", None)
    rows, labels, remark = _rows(taken)
    caption = f"Largest memory that a step held beyond its inputs and outputs.{remark}"
    return Plot("memory", title, caption, functools.partial(_draw_memory, taken, numbers, rows, labels))


def _draw_memory(taken: Any, numbers: Numbers, rows: Any, labels: list[str], palette: Palette) -> Figure:
    names = list(dict.fromkeys(record.provider for record in taken))
    made, axes = figure(palette, FRAME + ROW * len(rows) * max(1.4, 0.8 * len(names)))
    for record in taken:
        row, number = rows.get((record.case, record.device)), numbers[record.provider]
        if row is not None:
            y = row + (names.index(record.provider) - (len(names) - 1) / 2) * 0.6 / len(names)
            axes.plot(record.peak_bytes, y, marker(number), markersize=5.5, clip_on=False,
                      color=palette.of(number), label=provider_label(record.provider))  # fmt: skip
    axes.set_xscale("symlog", base=2, linthresh=1 << 16, linscale=1)
    top = max(record.peak_bytes for record in taken)
    axes.set_xlim(0, max(top, 1 << 18) * 2)
    axes.set_xticks([0, *(1 << power for power in range(16, max(19, top.bit_length() + 1), 2))])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: size(int(value))))
    axes.tick_params(axis="x", labelrotation=30)
    axes.set_xlabel("bytes (log scale from 64 KiB)")
    rows_axis(axes, labels)
    legend(made, axes, palette)
    return made
