"""Every table of the command line in 40 columns: each column and each value is there in full."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest
from rich.console import Console, RenderableType

from mfbench.commands import compare as compare_command
from mfbench.commands import doctor, verify
from mfbench.gpu_check.run import Findings
from mfbench.gpu_check.summary import LONGEST_LINE, summary
from mfbench.gpu_check.task import PlainCase, Result, Task
from mfbench.providers.outputs import LETTERS
from mfbench.report import terminal
from mfbench.report.terminal import Fitted
from mfbench.results.comparison import compare, measurement
from mfbench.testing.verify import Tally
from tests.mfbench.report.synthetic import case, failed, ok

WIDTH = 40
LONG = "/home/someone/kernels/my_compiled_kernel.py:a_step_with_a_long_name"
SHOWN = "my_compiled_kernel.py:a_step_with_a_long_name"


def of_run() -> tuple[RenderableType, Sequence[str]]:
    records = [ok(case(), "fused"), ok(case(), "autograd", 4e-3), ok(case(), LONG, 1.234e-3),
               failed(case(1), "skipped", "compile: no compiler was found", "compile")]  # fmt: skip
    columns = ("median", "±", "× autograd", "verdict", "error", "peak", "GEMM")
    return terminal.table(records), (*columns, "fused", SHOWN, "baseline", "4 KiB", "skipped", "no compiler was found")


def of_comparison() -> tuple[RenderableType, Sequence[str]]:
    base, new = [ok(case(), "fused"), ok(case(), LONG)], [ok(case(), "fused", 2e-3, run=1), ok(case(), LONG, run=1)]
    pairs = compare(map(measurement, base), map(measurement, new), margin=0.02)
    columns = ("base", "new", "× base", "verdict")
    return Fitted(compare_command.blocks(pairs)), (*columns, "fused", SHOWN, "slower", "same")


def of_verify() -> tuple[RenderableType, Sequence[str]]:
    worst = {name: 0.11 * number for number, name in enumerate(LETTERS, 1)}
    tallies = [Tally("native sparse deterministic", "cpu", 48, 48, worst), Tally(LONG, "cpu", 47, 48, worst)]
    figures = [f"{value:.2f}" for value in worst.values()]
    return verify.table(tallies), ("within bound", *LETTERS.values(), *figures, "47 of 48", "deterministic", SHOWN)


def of_inspect() -> tuple[RenderableType, Sequence[str]]:
    pytest.importorskip("triton", reason="Triton is not installed")
    from mfbench.commands import inspect
    from mfbench.inspect.document import Build
    from tests.mfbench.report.test_page import BUILD

    shown = ("sm_90", "ieee", "64x32x4", "168", "2067", "1.50", "67%", "1.05")
    return inspect.table([Build.model_validate(BUILD)]), (*inspect.COLUMNS, *shown)


def of_gpu_check() -> tuple[str, Sequence[str]]:
    """Nine cases side by side are wider than any line of the summary."""
    sizes = range(1000, 10000, 1000)
    records = [
        {
            "provider": provider,
            "case": PlainCase("gpu-check", m, m, 30),
            "timing": {"median_s": 1e-6 * m},
            "speedup": {"baseline": "autograd", "ratio": m / 1000, "ci95": (m / 1001, m / 999)},
        }
        for m in sizes
        for provider in ("autograd", "fused-deterministic")
    ]
    found = Findings("NVIDIA H100", seconds=1.0)
    task = Task("times", "all", lambda: Result("all"), True)
    found.results.append((task, Result("all", records=records)))
    text = summary(found, {"cpu": "a CPU", "system": "Linux"}, ())
    assert max(map(len, text.splitlines())) <= LONGEST_LINE
    return text, [f"{m}×{m} rank 30" for m in sizes] + [f"{m / 1000:.3g}× [{m / 1001:.3g}" for m in sizes]


def of_doctor() -> tuple[str, Sequence[str]]:
    findings = {"backends": {"native": "not available: no compiler was found", "torch": "available"}}
    return doctor.text(findings), ("backends", "native", "not available: no compiler was found", "torch")


def of_list() -> tuple[str, Sequence[str]]:
    names = doctor.names()
    return doctor.text(names), [part for section in names.values() for entry in section.items() for part in entry]


TABLES = (of_run, of_comparison, of_verify, of_inspect, of_gpu_check, of_doctor, of_list)


def printed(what: RenderableType | str) -> str:
    """Render a table at 40 columns; return text unchanged, since terminals wrap it."""
    if isinstance(what, str):
        return what
    output = io.StringIO()
    Console(file=output, width=WIDTH).print(what)
    assert max(map(len, output.getvalue().splitlines())) <= WIDTH
    return output.getvalue()


@pytest.mark.parametrize("table", TABLES)
def test_no_column_is_lost_or_cut(table) -> None:
    what, parts = table()
    text = printed(what)
    without_spaces = "".join(text.split())
    for part in parts:
        assert "".join(part.split()) in without_spaces
    assert "…" not in text
