"""Formats for other tools: names, units, intervals, and that what was not timed is absent."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from tests.mfbench.cli_runner import mfbench_here
from tests.mfbench.report.synthetic import case, failed, ok, suite, write

FORMATS = ("github-action-benchmark", "bencher", "pytorch-oss", "csv")


@pytest.fixture
def exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that exports records and returns the text."""

    def export(records: list, form: str) -> str:
        out = tmp_path / "out.txt"
        path = write(tmp_path / "r.jsonl", records)
        assert mfbench_here(monkeypatch, "report", path, "--out", out, "--format", form) == 0
        return out.read_text()

    return export


RECORDS = [ok(case(0), "fused", 1e-3), ok(case(0), "autograd", 4e-3), ok(case(1), "fused", 2e-3),
           failed(case(1), "wrong", "loss is off", "mine.py:step")]  # fmt: skip
MEDIANS = {
    "64×64/fused": RECORDS[0].timing.median_s,
    "64×64/autograd": RECORDS[1].timing.median_s,
    "128×128/fused": RECORDS[2].timing.median_s,
}


def test_github_action_benchmark(exported) -> None:
    entries = json.loads(exported(RECORDS, "github-action-benchmark"))
    assert {entry["name"]: entry["value"] for entry in entries} == pytest.approx(
        {name: median * 1e9 for name, median in MEDIANS.items()}
    )
    assert {entry["unit"] for entry in entries} == {"ns"}
    low, high = RECORDS[0].timing.ci95_s
    assert float(entries[0]["range"].removeprefix("± ")) == pytest.approx((high - low) / 2 * 1e9, rel=0.01)


def test_bencher_has_our_intervals_in_nanoseconds(exported) -> None:
    found = json.loads(exported(RECORDS, "bencher"))
    assert set(found) == set(MEDIANS)
    low, high = RECORDS[0].timing.ci95_s
    latency, throughput = found["64×64/fused"]["latency"], found["64×64/fused"]["throughput"]
    assert list(latency.values()) == pytest.approx([MEDIANS["64×64/fused"] * 1e9, low * 1e9, high * 1e9])
    assert list(throughput.values()) == pytest.approx([64 * 64 / s for s in (MEDIANS["64×64/fused"], high, low)])
    assert throughput["lower_value"] < throughput["value"] < throughput["upper_value"]


def test_pytorch_has_the_raw_samples_of_each_metric(exported) -> None:
    found = json.loads(exported(RECORDS, "pytorch-oss"))
    assert {(r["model"]["name"], r["metric"]["name"]) for r in found} == {
        ("fused", "latency_s"), ("fused", "speedup"), ("fused", "peak_bytes"), ("autograd", "latency_s"),
        ("autograd", "peak_bytes"),
    }  # fmt: skip
    first = found[0]
    assert first["metric"]["benchmark_values"] == RECORDS[0].timing.samples_s
    assert first["shape"]["m"] == 64
    assert first["benchmark"]["name"] == "mfbench"


def test_csv_has_a_line_for_every_measurement(exported) -> None:
    lines = list(csv.DictReader(exported(RECORDS, "csv").splitlines()))
    assert [line["status"] for line in lines] == ["ok", "ok", "ok", "wrong"]
    assert [float(line["median_s"]) for line in lines[:3]] == pytest.approx(list(MEDIANS.values()))
    assert (lines[3]["provider"], lines[3]["reason"], lines[3]["median_s"]) == ("mine.py:step", "loss is off", "")


@pytest.mark.parametrize("form", FORMATS[:3])
def test_too_few_rounds_for_an_interval_leave_it_out(exported, form: str) -> None:
    text = exported([ok(case(0), rounds=2)], form)
    assert "Infinity" not in text
    assert "lower_value" not in text
    assert "range" not in text


@pytest.mark.parametrize("form", FORMATS)
def test_the_newest_run_counts_and_csv_has_all(exported, form: str) -> None:
    text = exported([*suite(0), *suite(1)], form)
    entries = list(csv.DictReader(text.splitlines())) if form == "csv" else json.loads(text)
    names = {"csv": 16, "pytorch-oss": 4 * 3 + 4 * 2}
    assert len(entries) == names.get(form, 8)


@pytest.mark.parametrize("form", FORMATS)
def test_nothing_to_export_is_an_error(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    path = tmp_path / "r.jsonl"
    path.touch()
    assert mfbench_here(monkeypatch, "report", path, "--out", tmp_path / "out", "--format", form) == 4
    assert capsys.readouterr().err == f"mfbench: no records in {path} (it is empty) [nothing-to-show]\n"
    assert not (tmp_path / "out").exists()


def test_the_baselines_verdict_is_named_as_in_the_table(exported) -> None:
    rows = list(csv.DictReader(exported(suite(), "csv").splitlines()))
    assert {row["verdict"] for row in rows if row["provider"] == row["baseline"]} == {"baseline"}
    assert "baseline" not in {row["verdict"] for row in rows if row["provider"] != row["baseline"]}


def test_figures_need_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    path = write(tmp_path / "r.jsonl", RECORDS)
    plots = ("--plots", tmp_path / "plots")
    assert mfbench_here(monkeypatch, "report", path, "--out", tmp_path / "r.csv", *plots) == 2
    assert "--plots: needs a report in HTML or Markdown" in capsys.readouterr().err
