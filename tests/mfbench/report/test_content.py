"""Contents of the page and its summary for records with known properties."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from mfbench.report import answer, curves
from mfbench.report.evidence import Evidence, of_records
from mfbench.report.samples import pack
from tests.mfbench.cli_runner import mfbench_here
from tests.mfbench.commands.test_compare import write as rewrite
from tests.mfbench.report.synthetic import HOSTILE, case, failed, history, ok, suite, write

STATUSES = ("wrong", "oom", "timeout", "crashed", "error", "skipped")
BUILD = {"target": "sm_90", "rank": 32, "precision": "ieee", "encoding": "float32+uint8", "mode": "fast",
         "tile": "64x32x4", "registers": 168, "stack_bytes": 0, "shared_bytes": 16384, "shared_limit": 232448,
         "blocks": 3, "mix": {"instructions": 2067, "issued": 2067, "load": {"8": 12, "16": 12}},
         "bytes_per_rating": 5.0, "traffic": 1.05,
         "modelled": {"issue": 1.5, "vector": 0.9, "matrix": 0, "shared": 0.4, "l2": 0.1, "dram": 1.0,
                      "binds": "issue", "dram_fraction": 0.67, "issue_over_dram": 1.5},
         "ok": True}  # fmt: skip


def text(page: str) -> str:
    """Return what a reader sees, without markup, script and style."""
    body = re.sub(r"<(script|style|svg)\b.*?</\1>", "", page.partition("<body>")[2], flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", body))


def data(page: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page)[1])


def says(records: list) -> str:
    return answer.sentence(Evidence(of_records(records), [], []))


def test_the_first_sentence_is_the_answer() -> None:
    found = says(suite())
    assert re.match(r"fused is (3\.9\d|4|4\.0\d) times as fast as autograd \(geometric mean .* of 4 cases", found)
    assert "4 faster" in found
    assert "on Testium 9000, 2 threads" in found
    assert found.endswith("all 8 results lie within the bounds of the correctness gate.")


@pytest.mark.parametrize(("factor", "expected"), [(8, "fused takes 2 times as long as autograd"),
                                                  (4, "fused is as fast as autograd")])  # fmt: skip
def test_the_first_sentence_says_slower_and_same(factor: float, expected: str) -> None:
    assert re.sub(r"(1\.9\d|2\.0\d)(?= times as long)", "2", says(suite(factor=factor))).startswith(expected)


def test_the_first_sentence_counts_what_failed() -> None:
    found = says([*suite(), failed(case(0), "wrong", "x"), failed(case(1), "crashed", "y")])
    assert found.endswith("; 2 of 10 results failed (1 wrong, 1 crashed).")


def test_an_interval_that_reaches_one_is_undecided() -> None:
    records = [ok(case(), median_s=1e-3, baseline_s=1.03e-3, noise=0.2), ok(case(), "autograd", 1.03e-3, 1.03e-3)]
    assert says(records).startswith("Undecided: fused against autograd")


def test_the_newest_measurement_of_a_case_counts() -> None:
    page = Evidence(of_records([ok(case(), median_s=1e-3), ok(case(), median_s=2e-3, run=1)]), [], [])
    (entry,) = page.latest()
    assert entry.run == "run-1"
    skipped = Evidence(of_records([ok(case()), failed(case(), "skipped", "no", "fused", run=1)]), [], [])
    assert skipped.latest()[0].measurement.status == "ok"


def test_the_exponent_is_that_of_the_power_law() -> None:
    slope, error = curves.exponent([10, 100, 1000], [1e-3, 3e-2, 0.9])
    assert slope == pytest.approx(1.477, abs=1e-3)
    assert error == pytest.approx(0, abs=1e-12)


def test_the_page_has_every_section(made, tmp_path: Path) -> None:
    builds = tmp_path / "inspect.json"
    bad = BUILD | {"target": "gfx1100", "ok": False, "reason": "spills 214 registers"}
    builds.write_text(json.dumps({"schema": "mfbench-inspect/1", "builds": [BUILD, bad]}))
    page = made(write(tmp_path / "r.jsonl", suite()), builds)
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    assert [re.sub("<[^>]*>", "", title) for title in titles] == [
        "Speed-up", "Results", "Time over size", "Roofline", "Error over bound", "Peak memory",
        "Compiled resources modelled", "Environment",
    ]  # fmt: skip
    assert page.count("<svg") == 5
    assert "exponent 1.00 ± 0.00" in page
    assert "spills 214 registers" in text(page)
    assert "instructions 2067, load 24" in text(page)
    assert "Testium 9000" in text(page)


def test_two_files_are_compared(made, tmp_path: Path) -> None:
    base = write(tmp_path / "base.jsonl", suite(0))
    new = write(tmp_path / "new.jsonl", suite(1, factor=1.5))
    page = text(made(base, new))
    assert re.search(r"new\.jsonl against \S*base\.jsonl, 8 in common: (4 slower, 4 same|4 same, 4 slower)", page)
    short = made(base, new, name="report.md")
    assert len(re.findall(r"\| slower \|", short)) == 4


def test_different_environments_are_named(made, tmp_path: Path) -> None:
    base = write(tmp_path / "base.jsonl", suite(0))
    other = [record.model_copy(update={"env": {**record.env, "cpu": "Other 1"}}) for record in suite(1)]
    page = text(made(base, write(tmp_path / "new.jsonl", other)))
    assert "Measured in different environments: cpu is Other 1, was Testium 9000" in page


def test_a_history_marks_its_change(made, tmp_path: Path) -> None:
    page = made(write(tmp_path / "r.jsonl", history(runs=24, cases=2, step_at=12, ratio=1.3)))
    assert re.search(r"50×60 .*? · fused: 1\.\d+ times as long from 2026-01-04 00:00 on \(run 13\)", text(page))
    assert [item["changes"] for item in data(page)["items"]] == [[12], []]
    assert [len(item["runs"]) for item in data(page)["items"]] == [24, 24]


def test_what_is_left_out_is_named(made, tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", [*suite(), *(failed(case(0), s, f"why {s}", f"{s}.py:f") for s in STATUSES)])
    line = ok(case(9)).model_dump_json(exclude_none=True)
    with path.open("a") as file:
        file.write(line.replace('"schema":1', '"schema":7') + "\n" + '{"schema":7,"new":1}\nnot json\n' + line[:100])
    page = text(made(path))
    for status in STATUSES[:-1]:
        assert f"{status} {status}.py:f on 64×64" in page
        assert f": why {status}" in page
    assert "2 records of schema 7 left out (the first is line 15)" in page
    assert "line 17 is not a record" in page
    assert "the last line is torn" in page
    assert "5 of 13 results failed" in page


@pytest.mark.parametrize(
    "content", ["", "\n\n", "null", "[1, 2]", '{"schema":"mfbench-inspect/1"}', '{"benchmarks":3}']
)
def test_a_file_with_nothing_in_it_still_makes_a_page_but_fails(made, tmp_path: Path, content: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(content)
    page = text(made(path, code=4))
    assert "Nothing was measured in these files." in page
    assert "Left out" in page


def test_times_of_pytest_benchmark_are_shown_and_compared(made, tmp_path: Path) -> None:
    paths = []
    for number, median in enumerate((1e-3, 2e-3)):
        samples = [median * (1 + 0.001 * (i % 5)) for i in range(50)]
        stats = {"median": samples[2], "iqr": 1e-6, "rounds": 50, "data": samples}
        bench = {"group": "a group", "name": "mine", "fullname": "t.py::mine", "stats": stats}
        paths.append(tmp_path / f"{number}.json")
        paths[-1].write_text(json.dumps({"machine_info": {}, "datetime": "2026-01-01", "benchmarks": [bench]}))
    page = text(made(*paths))
    assert "benchmarks of pytest-benchmark" in page
    assert "1 in common: 1 slower." in page


def test_names_are_shown_and_never_markup(made, tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", [*suite(), failed(case(0), "wrong", HOSTILE, HOSTILE)])
    page = made(path)
    assert "<script>window" not in page
    assert "<img" not in page
    assert page.count("</script>") == 2
    assert "&lt;/script&gt;&lt;script&gt;window.hacked=1" in page
    short = made(path, name="report.md")
    assert "<script" not in short
    bars = [line.count("|") - line.count("\\|") for line in short.splitlines() if line.startswith("| ")]
    assert sorted(bars) == [5] + [12] * 9  # the failed one has its reason in place of the figures


def test_samples_are_packed_within_a_65535th_of_their_range() -> None:
    import base64

    import numpy as np

    values = np.random.default_rng(1).uniform(1e-3, 2e-3, 1000)
    packed = pack(values)
    steps = np.frombuffer(base64.b64decode(packed["q"]), "<u2")
    found = packed["lo"] + steps / 65535 * (packed["hi"] - packed["lo"])
    assert np.abs(found - values).max() <= (packed["hi"] - packed["lo"]) / 65535


@pytest.mark.slow
def test_a_long_history_stays_small_and_says_what_it_left_out(made, tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", history(runs=250, cases=20, step_at=125, ratio=1.2, rounds=120))
    page = made(path)
    assert len(page.encode()) < 4_000_000
    assert re.search(r"The raw samples of 1,\d{3} older measurements would make this page too large", text(page))
    assert all(str(249) in item["samples"] for item in data(page)["items"])


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


def test_reading_needs_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys; from mfbench.report import page; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
