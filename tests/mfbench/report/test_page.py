"""Contents of the page and its summary for records with known properties."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.mfbench.report.synthetic import HOSTILE, case, failed, history, ok, suite, write

STATUSES = ("wrong", "oom", "timeout", "crashed", "error", "skipped")
LAUNCHES = [
    {"name": name, "warps": warps, "registers": registers, "stack_bytes": 0, "shared_bytes": shared}
    for name, warps, registers, shared in (
        ("prepare", 8, 40, 512),
        ("fused_step", 4, 168, 16384),
        ("finish", 8, 56, 256),
    )
]
BUILD = {"target": "sm_90", "rank": 32, "precision": "ieee", "encoding": "float32+uint8", "mode": "fast",
         "tile": "64x32x4", "registers": 168, "stack_bytes": 0, "shared_bytes": 16384, "shared_limit": 232448,
         "blocks": 3, "mix": {"instructions": 2067, "issued": 2067, "load": {"8": 12, "16": 12}},
         "bytes_per_rating": 5.0, "traffic": 1.05,
         "modelled": {"issue": 1.5, "vector": 0.9, "matrix": 0, "shared": 0.4, "l2": 0.1, "dram": 1.0,
                      "binds": "issue", "dram_fraction": 0.67, "issue_over_dram": 1.5},
         "launches": LAUNCHES, "ok": True}  # fmt: skip


def text(page: str) -> str:
    """Return what a reader sees, without markup, script and style."""
    body = re.sub(r"<(script|style|svg)\b.*?</\1>", "", page.partition("<body>")[2], flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", body))


def data(page: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page)[1])


def test_the_page_has_every_section(made, tmp_path: Path) -> None:
    builds = tmp_path / "inspect.json"
    bad = BUILD | {"target": "gfx1100", "launches": [], "ok": False, "reason": "spills 214 registers"}
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
    assert "prepare 40, finish 56" in text(page)
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


@pytest.mark.slow
def test_a_long_history_stays_small_and_says_what_it_left_out(made, tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", history(runs=250, cases=20, step_at=125, ratio=1.2, rounds=120))
    page = made(path)
    assert len(page.encode()) < 4_000_000
    assert re.search(r"The raw samples of 1,\d{3} older measurements would make this page too large", text(page))
    assert all(str(249) in item["samples"] for item in data(page)["items"])


def test_reading_needs_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys; from mfbench.report import page; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
