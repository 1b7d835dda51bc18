"""Scaling in reports: which records form a series, its table, and its curves."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from mfbench.problems.cases import Case
from mfbench.report import evidence, frames, scaling, scaling_curves
from mfbench.report.style import drawn
from mfbench.results.records import Record
from tests.mfbench.report.synthetic import case, failed, ok


def measured(of: Case, provider: str = "fused", median_s: float = 1e-3, **changes: Any) -> Record:
    if of.processes is not None:
        predicted_s = 1.1 * median_s if provider == "fused" else None
        group = {"backend": "gloo", "threads": 1, "launches": 5, "computing_s": 0.9 * median_s,
                 "communicating_s": 0.1 * median_s, "predicted_s": predicted_s}  # fmt: skip
        changes = {"group": group, "roofline": None} | changes
    return ok(of, provider, median_s, **changes)


def scaled(kind: str, ratio: float, efficiency: float, **changes: Any) -> dict[str, Any]:
    ends = (0.9 * efficiency, 1.1 * efficiency)
    return {"kind": kind, "ratio": ratio, "ci95": (0.9 * ratio, 1.1 * ratio), "efficiency": efficiency,
            "efficiency_ci95": ends} | changes  # fmt: skip


def run() -> list[Record]:
    """One, two and four processes on 64 users, or 64 each; the others' records of that run in between."""
    found = [measured(case())]
    for provider in ("fused", "autograd"):
        found.append(measured(case(processes=1), provider))
        for count, strong, weak in ((2, 1.6, 0.9), (4, 2.0, 0.7)):
            alone = {"one_process_threads": 2, "one_process_ratio": 0.95, "one_process_ci95": (0.9, 1.0)}
            parts = scaled("strong", strong, strong / count, **(alone if count == 2 else {}))
            found.append(measured(case(processes=count), provider, 1e-3 / strong, scaling=parts))
            grown = case(processes=count, m=64 * count)
            found.append(measured(grown, provider, 1e-3 / weak, scaling=scaled("weak", weak, weak)))
    return [*found, measured(case(1)), failed(case(1, processes=1), "oom", "no memory")]


def test_series_are_of_one_problem_or_of_one_that_grows() -> None:
    strong, weak, other = scaling.all_series(run())
    assert (strong.kind, weak.kind, other.kind) == ("strong", "weak", "strong")
    assert [(r.case.processes, r.provider) for r in strong.records] == [
        (None, "fused"), (1, "fused"), (1, "autograd"), (2, "fused"), (2, "autograd"), (4, "fused"), (4, "autograd"),
    ]  # fmt: skip
    assert [r.case.m for r in weak.records] == [64, 64, 128, 128, 256, 256]
    assert other.case.m == 128
    assert [r.status for r in other.records] == ["ok", "oom"]


def test_the_table_shows_both_and_says_why_one_failed() -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(scaling.table(run()))
    text = console.export_text()
    assert "strong scaling: 64×64 rank 8, 0.5 observed, float32 + uint8 mask\n" in text
    assert "weak scaling: 64×64 rank 8, 0.5 observed, float32 + uint8 mask for each process" in text
    (row,) = [line for line in text.splitlines() if "1.6 [1.44, 1.76]" in line and line.startswith("fused")]
    assert "80% [72%, 88%]" in row
    assert "62.5 µs (10%)" in row
    assert "688 µs (+10%)" in row
    assert "fused: 2 processes of 2 threads are 0.95 [0.9, 1] times as fast as one of 2 threads" in text
    assert "mine.py:step, 1 process: no memory" in text


def test_the_legend_names_backend_and_machine() -> None:
    assert scaling.legend(run()).endswith("gloo, Testium 9000, 2 cores")
    assert not scaling.legend([measured(case())])


def test_curves_are_drawn_with_the_models() -> None:
    plots = scaling_curves.plots(run(), {"fused": 0, "autograd": 1, "mine.py:step": 2})
    assert [plot.name for plot in plots] == ["strong-scaling", "weak-scaling"]
    for plot, expected in zip(plots, ([1, 0.8, 0.5], [1, 0.9, 0.7]), strict=True):
        assert plot.draw is not None
        (axes,) = drawn(plot.draw).axes
        labels = axes.get_legend_handles_labels()[1]
        assert sorted(labels) == ["autograd", "fused", "fused, model"]
        lines = [np.asarray(line.get_ydata(), dtype=float) for line in axes.lines if len(line.get_xdata()) == 3]
        assert any(line == pytest.approx(expected) for line in lines)


def test_rows_of_a_data_frame_have_what_scaling_adds() -> None:
    found = evidence.of_records(run())
    rows = {(row["processes"], row["m"], row["provider"]): row for row in frames.rows(found[0].results)}
    row = rows[2, 64, "fused"]
    assert [row[name] for name in ("scaling", "efficiency", "efficiency_low", "efficiency_high")] == [
        "strong", 0.8, pytest.approx(0.72), pytest.approx(0.88),
    ]  # fmt: skip
    assert row["computing_s"] + row["communicating_s"] == pytest.approx(1e-3 / 1.6)
    assert rows[None, 64, "fused"]["efficiency"] is rows[None, 64, "fused"]["computing_s"] is None


def test_other_records_have_no_curves() -> None:
    assert scaling_curves.plots([measured(case()), measured(case(1))], {"fused": 0}) == []
    assert scaling_curves.plots([measured(case(processes=1))], {"fused": 0}) == []
