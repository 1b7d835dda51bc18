"""`mfbench report`: usage errors, figures as files, exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mfbench.cli_runner import mfbench_here
from tests.mfbench.commands.test_compare import write as rewrite
from tests.mfbench.report.conftest import made
from tests.mfbench.report.synthetic import suite, write

__all__ = ["made"]


@pytest.mark.parametrize(
    ("kind", "start"), [("svg", b"<?xml"), pytest.param("png", b"\x89PNG", marks=pytest.mark.slow)]
)
def test_every_figure_is_a_file_too(made, tmp_path: Path, kind: str, start: bytes) -> None:
    path = write(tmp_path / "r.jsonl", [*suite(0), *suite(1), *suite(2)])
    made(path, options=("--plots", tmp_path / "plots", "--plots-format", kind))
    found = {file.stem: file.read_bytes() for file in (tmp_path / "plots").iterdir()}
    assert {"speedups", "time-over-size", "roofline", "errors", "memory", "history-04", "samples-004"} <= set(found)
    assert all(content.startswith(start) for content in found.values())


def test_usage_errors_have_code_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    good = rewrite(tmp_path / "r.jsonl", suite())
    assert mfbench_here(monkeypatch, "report", tmp_path / "none.jsonl", "--out", tmp_path / "x.html") == 2
    assert mfbench_here(monkeypatch, "report", good, "--out", tmp_path / "no" / "x.html") == 2
    assert mfbench_here(monkeypatch, "report", good) == 2
    assert mfbench_here(monkeypatch, "report", good, "--out", tmp_path / "x.pdf") == 2
    err = capsys.readouterr().err
    assert "cannot be read" in err
    assert "--out: expected a name that ends in .html, .md or .csv, or a format, got " in err
    assert not (tmp_path / "x.pdf").exists()
    before = good.read_bytes()
    assert mfbench_here(monkeypatch, "report", good, "--out", good, "--format", "md") == 2
    assert good.read_bytes() == before
    assert mfbench_here(monkeypatch, "report", good, "--out", tmp_path / "x.page", "--format", "html") == 0


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    from mfbench.report import requirements

    monkeypatch.setattr(requirements, "find_spec", lambda name: None)
    good = rewrite(tmp_path / "r.jsonl", suite())
    assert mfbench_here(monkeypatch, "report", good, "--out", tmp_path / "x.html") == 2
    assert "pip install 'mfbench[report]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "held"),
    [
        ("", "no records in {} (it is empty)"),
        ("\n\n", "no records in {} (it is empty)"),
        ("user,item,rating\n" + "1,2,3\n" * 9, "no records in {} (line 1 is not JSON: 'user,item,rating')"),
        ("\n[[1.0]\n", "no records in {} (line 2 is not JSON: '[[1.0]')"),
        ("null", "no records in {} (line 1 is not a record: 'null')"),
        ("[1, 2]\n", "no records in {} (line 1 is not a record: '[1, 2]')"),
        ('{"user":1}\n' * 7, "no records in {} (line 1 is not a record: '{{\"user\":1}}')"),
        ('{"benchmarks":3}', "no records in {} (line 1 is not a record: '{{\"benchmarks\":3}}')"),
        ('{"schema":"mfbench-inspect/1"}', "{}: has no list 'builds' and was left out"),
    ],
)
def test_a_file_with_nothing_to_show_is_one_line_and_no_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, content: str, held: str
) -> None:
    path, page = tmp_path / "r.json", tmp_path / "page.html"
    path.write_text(content)
    page.write_text("yesterday's")
    assert mfbench_here(monkeypatch, "report", path, "--out", page, "--quiet") == 4
    assert capsys.readouterr().err == f"mfbench: {held.format(path)} [nothing-to-show]\n"
    assert page.read_text() == "yesterday's"


def test_a_file_without_records_beside_good_ones_is_one_note(made, tmp_path: Path, capsys) -> None:
    good, other = rewrite(tmp_path / "r.jsonl", suite()), tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n" * 20)
    made(good, other)
    assert capsys.readouterr().err == f"mfbench: no records in {other} (line 1 is not JSON: 'a,b')\n"
