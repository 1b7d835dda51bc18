"""`mfbench run --resolve` at the ends of what it accepts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mfbench.results.records import read
from tests.mfbench.cli_runner import mfbench_here


@pytest.mark.parametrize(
    "options", [("--resolve", 0.02, "--budget", 0.001), ("--resolve", 1e-300), ("--resolve", 0.999)]
)
def test_a_difference_to_resolve_with_the_baseline_alone_or_no_time(
    tmp_path: Path, monkeypatch, capsys, options
) -> None:
    out = tmp_path / "out.jsonl"
    for provider in ("autograd", "closed-form"):
        budget = () if "--budget" in options else ("--budget", 0.2)
        given = ("--size", "30x40", "--threads", 1, "--out", out, "--provider", provider, *options, *budget)
        assert mfbench_here(monkeypatch, "run", *given) == 0
        notes = capsys.readouterr().err.splitlines()
        assert notes[0].startswith("mfbench: --resolve: rounds for up to ")
        assert re.search(r"30×40 .*: \d+ rounds, about [\d.]+ (s|min)", notes[1])
    records, _ = read(out)
    assert [record.status for record in records] == ["ok"] * 3
    assert min(record.timing.rounds for record in records) >= 3


@pytest.mark.parametrize("given", ["0", "1", "2", "-0.02", "nan", "inf", "2%"])
def test_a_difference_that_is_no_fraction_is_refused(tmp_path: Path, monkeypatch, capsys, given: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert mfbench_here(monkeypatch, "run", "--size", "30x40", "--resolve", given) == 2
    err = capsys.readouterr().err
    assert "'--resolve'" in err
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())
