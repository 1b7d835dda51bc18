"""Tables in a terminal: complete at any width, never read as markup, coloured only in terminals."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from mfbench.commands.compare import blocks
from mfbench.report import terminal
from mfbench.report.labels import seconds
from mfbench.report.terminal import Fitted
from mfbench.results.comparison import compare, measurement
from mfbench.results.records import Record
from tests.mfbench.cli_runner import command
from tests.mfbench.report.synthetic import case, failed, ok, suite, write

LONG = "/home/someone/kernels/my_compiled[1].py:step_with_a_long_name"
RECORDS = [ok(case(), "fused"), ok(case(), "autograd", 4e-3), ok(case(), LONG, 1.234e-3),
           failed(case(), "wrong", "grad_item_bias: 3.2 times its bound", "mine.py:step")]  # fmt: skip
WIDTHS = (40, 60, 80, 120)


def printed(what: RenderableType, width: int) -> list[str]:
    output = io.StringIO()
    Console(file=output, width=width).print(what)
    return output.getvalue().splitlines()


def comparison_of(records: Sequence[Record]) -> Fitted:
    slower = [ok(case(), "fused", 2e-3, run=1), ok(case(), "autograd", 4e-3, run=1), ok(case(), LONG, 1.3e-3, run=1)]
    sides = ([measurement(record) for record in side] for side in (records, [*slower, records[-1]]))
    return Fitted(blocks(compare(*sides, margin=0.02)))


@pytest.mark.parametrize("width", WIDTHS)
def test_the_table_of_a_run_loses_nothing(width: int) -> None:
    lines = printed(terminal.table(RECORDS), width)
    assert max(map(len, lines)) <= width
    text = "".join("".join(lines).split())
    median = "".join(seconds(RECORDS[2].timing.median_s).split())
    for part in (
        "fused", "autograd", "mine.py:step", "median", "±", "×autograd", "verdict", "error", "peak", "GEMM", median,
        "faster", "baseline", "0.10", "4KiB", "wrong", "3.2timesitsbound",
    ):  # fmt: skip
        assert part in text
    assert "…" not in text
    words = set(" ".join(lines).split())
    assert {"fused", "autograd", "median", "verdict", "baseline", "faster", "wrong"} <= {w.strip(":") for w in words}


@pytest.mark.parametrize("width", WIDTHS)
def test_the_table_of_a_comparison_loses_nothing(width: int) -> None:
    lines = printed(comparison_of(RECORDS), width)
    assert max(map(len, lines)) <= width
    words = set(" ".join(lines).split())
    assert {"base", "new", "verdict", "slower", "same", "still", "failing"} <= words
    assert any(re.fullmatch(r"0\.\d+", word) for word in words)


@pytest.mark.parametrize("width", [80, 120])
def test_intervals_stay_on_one_line_in_tables(width: int) -> None:
    assert any(re.search(r"\[\d\S*, \d\S*\]", line) for line in printed(terminal.table(RECORDS), width))


@pytest.mark.parametrize("width", WIDTHS)
def test_brackets_are_text(width: int) -> None:
    few = ok(case(), "[red]fused[/red]", rounds=2)
    text = " ".join(" ".join(printed(terminal.table([few]), width)).split())
    assert "[red]fused[/red]" in "".join(text.split())
    assert "[too few rounds]" in text


COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def in_terminal(arguments: list[str], cwd: Path, **environment: str) -> str:
    """Return what a command prints in a terminal of 80 columns."""
    leader, follower = pty.openpty()
    settings = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
    settings |= {"TERM": "xterm-256color", "COLUMNS": "80", **environment}
    with subprocess.Popen(arguments, cwd=cwd, stdout=follower, stderr=follower, env=settings) as process:
        os.close(follower)
        printed = b""
        while select.select([leader], [], [], 120)[0]:
            try:
                part = os.read(leader, 65536)
            except OSError:  # the other end was closed
                break
            if not part:
                break
            printed += part
        process.wait()
    os.close(leader)
    return printed.decode()


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A command that prints a table with colours and a line of errors."""
    folder = tmp_path_factory.mktemp("compared")
    base, new = write(folder / "a.jsonl", suite(0)), write(folder / "b.jsonl", suite(1, factor=1.5))
    return command("compare", base, new)


@pytest.fixture(scope="module")
def shown(compared: list[str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """What that command prints in a terminal."""
    return in_terminal(compared, tmp_path_factory.mktemp("shown"))


def test_colours_are_for_terminals_and_can_be_turned_off(shown: str, compared: list[str], tmp_path: Path) -> None:
    assert COLOUR.search(shown)
    assert not re.search(r"\x1b\[(?:\d+;)*(?:3|4|9)\d", in_terminal(compared, tmp_path, NO_COLOR="1"))
    piped = subprocess.run(compared, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "slower" in piped.stdout
    assert "\x1b" not in piped.stdout + piped.stderr


def test_80_columns_are_enough(shown: str) -> None:
    lines = COLOUR.sub("", shown).replace("\r", "").splitlines()
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)


@pytest.mark.parametrize(
    ("ends", "words"), [((None, None), "[too few rounds]"), ((1e-4, 1e4), "[too noisy]"), ((3.9, 4.1), "[3.9, 4.1]")]
)
def test_intervals_are_the_same_in_the_terminal_and_in_markdown(
    ends: tuple[float | None, float | None], words: str, made, tmp_path: Path
) -> None:
    record = ok(case(), "fused")
    assert record.speedup is not None
    record = record.model_copy(update={"speedup": record.speedup.model_copy(update={"ci95": ends})})
    assert words in " ".join(printed(terminal.table([record]), 120))
    page = made(write(tmp_path / "r.jsonl", [record]), name="report.md")
    assert words in page.replace("\\", "")


@pytest.mark.parametrize("rounds", [2, 12])
def test_intervals_of_comparisons_are_the_same_in_the_terminal_and_in_markdown(rounds: int, made, tmp_path) -> None:
    sides = [[ok(case(), "fused", 1e-3, run=run, rounds=rounds, noise=3.0)] for run in (0, 1)]
    shown = Fitted(blocks(compare(*([measurement(record) for record in side] for side in sides), margin=0.02)))
    words = "[too few rounds]" if rounds == 2 else "[too noisy]"
    assert words in " ".join(printed(shown, 120))
    files = [write(tmp_path / f"{name}.jsonl", side) for name, side in zip("ab", sides, strict=True)]
    assert words in made(*files, name="report.md").replace("\\", "")


NOISY = {"verdict": "inconclusive", "needs_s": 12.0}
WOULD_DECIDE = "undecided; 3 times as many rounds would probably decide it: --budget 16"


def test_what_would_decide_is_said_in_the_terminal_and_on_the_page(made, tmp_path: Path) -> None:
    record = ok(case(), "fused")
    assert record.speedup is not None
    assert record.timing is not None
    noisy = record.model_copy(
        update={
            "speedup": record.speedup.model_copy(update=NOISY),
            "timing": record.timing.model_copy(update={"took_s": 4.0}),
        }
    )
    assert f"fused: {WOULD_DECIDE}" in " ".join(printed(terminal.table([noisy]), 120))
    path = write(tmp_path / "r.jsonl", [noisy, ok(case(), "autograd", 4e-3)])
    for name in ("report.html", "report.md"):
        page = made(path, name=name).replace("\\", "")
        assert page.count(WOULD_DECIDE) == 1
        assert re.search(f"fused on 64×64.*: {WOULD_DECIDE}", page)
    assert WOULD_DECIDE not in made(write(tmp_path / "decided.jsonl", [record]))


def test_what_would_decide_is_said_of_paired_comparisons(tmp_path: Path) -> None:
    """As of `run --against`: both sides took turns in the rounds that a budget is for."""
    sides = []
    for run in (0, 1):
        record = ok(case(), "fused", run=run, noise=0.05)
        assert record.timing is not None
        sides.append(
            [measurement(record.model_copy(update={"timing": record.timing.model_copy(update={"took_s": 4.0})}))]
        )
    paired = compare(*sides, margin=0.02, paired=True)
    assert [pair.outcome for pair in paired.pairs] == ["inconclusive"]
    text = " ".join(printed(Fitted(blocks(paired)), 120))
    found = re.search(r"fused: undecided; (\S+) times as many rounds would probably decide it: --budget (\d+)", text)
    assert found
    assert float(found[2]) == pytest.approx(1.3 * 4.0 * float(found[1]), rel=0.1)
    assert "undecided" not in " ".join(printed(Fitted(blocks(compare(*sides, margin=0.02))), 120))
