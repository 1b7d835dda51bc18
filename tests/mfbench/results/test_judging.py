"""Comparison of files: the same verdicts from every tool's file, and what cannot be compared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import mfbench
from mfbench.errors import NotComparable, UsageError
from mfbench.results.comparison import Measurement, compare, measurement
from mfbench.results.judging import judged, read
from mfbench.results.records import Record
from tests.mfbench.cli_runner import mfbench_here
from tests.mfbench.report.synthetic import write
from tests.mfbench.results.test_comparison import ENV
from tests.mfbench.results.test_foreign import FIXTURES, TOOLS, with_samples
from tests.mfbench.results.test_records import record


@pytest.fixture
def sides(request, tmp_path: Path) -> tuple[Path, Path]:
    """The real files of a tool; for nvbench, files with samples of a known ratio."""
    if request.param != "nvbench":
        return FIXTURES / f"{request.param}-base.json", FIXTURES / f"{request.param}-new.json"
    rng = np.random.default_rng(2)
    base, new = (median * np.exp(0.01 * rng.standard_normal(300)) for median in (1.5e-5, 1.8e-5))
    return with_samples(tmp_path, "base.json", base), with_samples(tmp_path, "new.json", new)


def as_record(m: Measurement, number: int) -> Record:
    """Return our own record of the same numbers."""
    if m.samples is None:
        return record(number, provider=m.provider, status=m.status, reason=m.reason, env=ENV)
    samples = np.asarray(m.samples).tolist()
    timing = {"samples_s": samples, "median_s": float(np.median(samples)), "ci95_s": (None, None),
              "rounds": len(samples), "loops": 1, "method": "another tool", "cold_cache": False}  # fmt: skip
    return record(number, provider=m.provider, status="ok", reason=None, timing=timing, env=ENV)


@pytest.mark.parametrize("sides", TOOLS, indirect=True)
def test_the_verdict_is_that_of_the_same_numbers_in_our_records(sides: tuple[Path, Path]) -> None:
    base, new = (read(path) for path in sides)
    theirs = judged(base, new, 0.02)
    assert any(pair.outcome == "slower" for pair in theirs.pairs)
    numbers = {m.key: number for number, m in enumerate(base.measurements)}
    ours = compare(*([measurement(as_record(m, numbers[m.key])) for m in side.measurements] for side in (base, new)),
                   margin=0.02)  # fmt: skip
    assert [(p.ratio, p.outcome) for p in ours.pairs] == [(p.ratio, p.outcome) for p in theirs.pairs]
    assert ours.exit_code == theirs.exit_code == 1


@pytest.mark.parametrize("tool", TOOLS)
def test_the_command_line_compares_and_reports_every_tool(tool: str, monkeypatch, capsys, tmp_path: Path) -> None:
    paths = [FIXTURES / f"{tool}-base.json", FIXTURES / f"{tool}-new.json"]
    assert mfbench_here(monkeypatch, "compare", *paths, "--json") == 1
    assert json.loads(capsys.readouterr().out)["outcomes"]["slower"] >= 1
    assert mfbench_here(monkeypatch, "compare", paths[0], paths[0]) == 0
    csv = tmp_path / "all.csv"
    assert mfbench_here(monkeypatch, "report", *paths, "--out", csv) == 0
    assert csv.read_text().startswith("run,time,case,provider,device,status,reason,median_s")


def test_another_machine_is_refused_without_force(tmp_path: Path, monkeypatch, capsys) -> None:
    base, new = FIXTURES / "pytest-benchmark-base.json", tmp_path / "new.json"
    new.write_text(base.read_text().replace("a cpu", "another"))
    assert mfbench_here(monkeypatch, "compare", base, new) == 4
    assert "cpu is another, was a cpu" in capsys.readouterr().err
    assert mfbench_here(monkeypatch, "compare", base, new, "--force") == 0


def test_records_and_another_tool_are_not_compared(tmp_path: Path, monkeypatch, capsys) -> None:
    path = write(tmp_path / "r.jsonl", [record(0)])
    assert mfbench_here(monkeypatch, "compare", FIXTURES / "asv-base.json", path) == 4
    assert "holds results of mfbench" in capsys.readouterr().err


def test_two_tools_are_not_compared(monkeypatch, capsys) -> None:
    base, new = FIXTURES / "pyperf-base.json", FIXTURES / "hyperfine-base.json"
    with pytest.raises(NotComparable, match="they measure in different ways"):
        judged(read(base), read(new), 0.02)
    assert mfbench_here(monkeypatch, "compare", base, new) == 4
    err = capsys.readouterr().err
    assert "holds results of pyperf" in err
    assert "holds results of hyperfine" in err


@pytest.mark.parametrize(("margin", "meant"), [(5, "0.05"), (1.0, "0.01"), (20, "0.2")])
def test_a_margin_in_per_cent_is_an_error_in_the_interface_too(margin: float, meant: str) -> None:
    base = FIXTURES / "hyperfine-base.json"
    calls = (
        lambda: mfbench.compare(base, base, margin=margin),
        lambda: mfbench.load(base, margin=margin),
        lambda: mfbench.run(size="3x4", margin=margin),
    )
    for call in calls:
        with pytest.raises(UsageError, match=f"margin: expected a fraction.*per cent is {meant}"):
            call()


@pytest.mark.parametrize("margin", [-0.1, float("nan"), float("inf"), "0.05", None])
def test_a_margin_is_a_fraction(margin) -> None:
    with pytest.raises(UsageError, match="margin: expected a fraction from 0 to below 1"):
        mfbench.load(FIXTURES / "hyperfine-base.json", margin=margin)


def test_lost_cases_count_in_the_interface_too() -> None:
    document = json.loads((FIXTURES / "hyperfine-base.json").read_text())
    base = mfbench.load(FIXTURES / "hyperfine-base.json")
    assert len(document["results"]) == 3
    assert mfbench.compare(base, base).exit_code == 0
    fewer = mfbench.load(FIXTURES / "hyperfine-base.json")
    fewer._evidence.runs[0].results.pop()
    assert mfbench.compare(base, fewer).exit_code == 4
    assert mfbench.compare(base, fewer, allow_missing=True).exit_code == 0
