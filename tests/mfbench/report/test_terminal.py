"""Tables in a terminal: complete at any width, and never read as markup."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

import pytest
from rich.console import Console, RenderableType

from mfbench.commands.compare import _blocks
from mfbench.report import terminal
from mfbench.report.labels import seconds
from mfbench.report.terminal import Fitted
from mfbench.results.comparison import compare, measurement
from mfbench.results.records import Record
from tests.mfbench.report.synthetic import case, failed, ok

LONG = "/home/someone/kernels/my_compiled[1].py:step_with_a_long_name"
RECORDS = [ok(case(), "fused"), ok(case(), "autograd", 4e-3), ok(case(), LONG, 1.234e-3),
           failed(case(), "wrong", "grad_item_bias: 3.2 times its bound", "mine.py:step")]  # fmt: skip
WIDTHS = (40, 60, 80, 120)


def printed(what: RenderableType, width: int) -> list[str]:
    output = io.StringIO()
    Console(file=output, width=width).print(what)
    return output.getvalue().splitlines()


def compared(records: Sequence[Record]) -> Fitted:
    slower = [ok(case(), "fused", 2e-3, run=1), ok(case(), "autograd", 4e-3, run=1), ok(case(), LONG, 1.3e-3, run=1)]
    sides = ([measurement(record) for record in side] for side in (records, [*slower, records[-1]]))
    return Fitted(_blocks(compare(*sides, margin=0.02)))


@pytest.mark.parametrize("width", WIDTHS)
def test_the_table_of_a_run_loses_nothing(width: int) -> None:
    lines = printed(terminal.table(RECORDS), width)
    assert max(map(len, lines)) <= width
    text = "".join("".join(lines).split())
    for part in ("fused", "autograd", "mine.py:step", "median", "±", "×autograd", "verdict", "error", "peak", "GEMM",
                 "".join(seconds(RECORDS[2].timing.median_s).split()), "faster", "baseline", "0.10", "4KiB", "wrong", "3.2timesitsbound"):  # fmt: skip
        assert part in text
    assert "…" not in text
    words = set(" ".join(lines).split())
    assert {"fused", "autograd", "median", "verdict", "baseline", "faster", "wrong"} <= {w.strip(":") for w in words}


@pytest.mark.parametrize("width", WIDTHS)
def test_the_table_of_a_comparison_loses_nothing(width: int) -> None:
    lines = printed(compared(RECORDS), width)
    assert max(map(len, lines)) <= width
    words = set(" ".join(lines).split())
    assert {"base", "new", "verdict", "slower", "same", "still", "failing"} <= words
    assert any(re.fullmatch(r"0\.\d+", word) for word in words)


@pytest.mark.parametrize("width", [80, 120])
def test_intervals_stay_on_one_line_in_tables(width: int) -> None:
    assert any(re.search(r"\[\d\S*, \d\S*\]", line) for line in printed(terminal.table(RECORDS), width))


@pytest.mark.parametrize("width", WIDTHS)
def test_brackets_are_text(width: int) -> None:
    few = ok(case(), "[red]fused[/red]", rounds=3)
    text = " ".join(" ".join(printed(terminal.table([few]), width)).split())
    assert "[red]fused[/red]" in "".join(text.split())
    assert "[too noisy]" in text
