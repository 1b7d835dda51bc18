"""Other tools' results: what is read from their files, in which unit, what is left out, and how it is judged."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mfbench.errors import NotComparable
from mfbench.results import foreign
from mfbench.results.comparison import Measurement, Quartiles
from mfbench.results.judging import judged, read

FIXTURES = Path(__file__).parents[2] / "fixtures" / "foreign"
TOOLS = [tool.name for tool in foreign.TOOLS]


def found(name: str) -> foreign.ToolResults:
    path = FIXTURES / f"{name}.json"
    results = foreign.parse(path, path.read_bytes())
    assert results is not None
    return results


def by_name(results: foreign.ToolResults) -> dict[str, Measurement]:
    named = {m.provider: m for m in results.measurements}
    assert len(named) == len(results.measurements)
    return named


def raw(name: str) -> dict[str, Any]:
    return json.loads((FIXTURES / f"{name}.json").read_text())


def test_every_tool_is_recognised() -> None:
    assert [found(f"{tool}-base").tool for tool in TOOLS] == TOOLS
    assert foreign.parse(Path("x"), b'{"benchmarks": 3}') is None
    assert foreign.parse(Path("x"), b"[1, 2]") is None


def test_pytest_benchmark_is_read_by_full_name() -> None:
    results = found("pytest-benchmark-base")
    assert [(m.case, m.provider) for m in results.measurements] == [
        ("test_a.py", "TestSmall::test_step"),
        ("test_a.py", "TestLarge::test_step"),
        ("shared", "test_a.py::test_sort"),
        ("shared", "test_b.py::test_sort"),
    ]
    stats = {bench["fullname"]: bench["stats"] for bench in raw("pytest-benchmark-base")["benchmarks"]}
    for m in results.measurements:
        name = m.provider if m.case == "shared" else f"{m.case}::{m.provider}"
        assert m.median_s == pytest.approx(stats[name]["median"], rel=1e-5)
    assert results.notes == [
        f"{FIXTURES / 'pytest-benchmark-base.json'}: test_frozen was left out: a time of it is zero or missing"
    ]


@pytest.mark.parametrize("kept", ["data", "summary"])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"fullname": "t.py::TestA::test_step"}, {"fullname": "t.py::TestB::test_step"}),
        ({"fullname": "a.py::test_step", "group": "g"}, {"fullname": "b.py::test_step", "group": "g"}),
        ({"fullname": "t.py::test_step[1]"}, {"fullname": "t.py::test_step[2]"}),
        (
            {"fullname": "t.py::test_step[a]", "name": "test_step"},
            {"fullname": "t.py::test_step[b]", "name": "test_step"},
        ),
        ({"fullname": "a/t.py::test_step"}, {"fullname": "b/t.py::test_step"}),
        ({"fullname": "t.py::test_step"}, {"fullname": "t.py::test_step"}),  # two runs in one file
    ],
)
def test_benchmarks_of_one_name_are_judged_apart(tmp_path: Path, first: dict, second: dict, kept: str) -> None:
    """The second benchmark is 2.9 times as slow; keyed by `name`, it hid behind the first."""

    def side(name: str, factor: float) -> Path:
        rng = np.random.default_rng(int(10 * factor))
        benchmarks = []
        for fields, median in ((first, 1e-3), (second, factor * 1e-3)):
            samples = median * np.exp(0.001 * rng.standard_normal(200))
            low, middle, high = np.quantile(samples, [0.25, 0.5, 0.75])
            stats = {"median": middle, "iqr": high - low, "rounds": 200}
            stats |= {"data": samples.tolist()} if kept == "data" else {}
            benchmarks.append({"name": "test_step", "group": None, "stats": stats} | fields)
        path = tmp_path / name
        path.write_text(json.dumps({"machine_info": {}, "benchmarks": benchmarks}))
        return path

    pairs = judged(read(side("a.json", 1.0)), read(side("b.json", 2.9)), 0.02).pairs
    assert [pair.outcome for pair in pairs] == ["same", "slower"]


@pytest.mark.parametrize(
    ("stats", "reason"),
    [
        ({"median": 0.0, "iqr": 0.0, "rounds": 5}, "a time of it is zero or missing"),
        ({"median": 1.0, "iqr": 0.1, "rounds": 3, "data": [1.0, 0.0, 1.1]}, "a time of it is zero or missing"),
        (
            {"median": float("nan"), "iqr": 0.0, "rounds": 5},
            "stats.median: expected a finite number, got nan",
        ),
        ({"median": 1.0, "rounds": 5}, "benchmarks.0.stats.iqr: is missing"),
    ],
)
def test_one_unusable_benchmark_does_not_refuse_the_file(tmp_path: Path, stats: dict, reason: str, capsys) -> None:
    good = {"median": 1.0, "iqr": 0.1, "rounds": 30}
    benchmarks = [{"fullname": f"t.py::{name}", "stats": s} for name, s in (("odd", stats), ("good", good))]
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"machine_info": {}, "benchmarks": benchmarks}))
    assert [m.provider for m in read(path).measurements] == ["good"]
    err = capsys.readouterr().err
    assert "odd was left out" in err
    assert reason in err


def test_pyperf_values_are_seconds_per_loop_in_their_order() -> None:
    results = found("pyperf-base")
    runs = raw("pyperf-base")["benchmarks"][0]["runs"]
    m = by_name(results)["sum_range"]
    assert m.samples.tolist() == [value for run in runs for value in run["values"]]
    assert m.env["versions"]["python"].startswith("3.11")
    assert results.time.startswith("2026-11-28T")
    assert "mem was left out: its unit is byte, not seconds" in results.notes[0]


def test_a_compressed_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress((FIXTURES / "pyperf-base.json").read_bytes()))
    assert {m.provider for m in read(path).measurements} == {"sum_range", "sort_list"}


@pytest.mark.parametrize(("unit", "seconds"), [("ns", 1e-9), ("us", 1e-6), ("ms", 1e-3), ("s", 1.0)])
def test_google_benchmark_times_have_a_unit(tmp_path: Path, unit: str, seconds: float) -> None:
    document = raw("google-benchmark-base")
    for row in document["benchmarks"]:
        row["time_unit"] = unit
    expected = [row["real_time"] * seconds for row in document["benchmarks"] if row["name"] == "sort_list"]
    results = foreign.parse(tmp_path / "a.json", json.dumps(document).encode())
    assert by_name(results)["sort_list"].samples.tolist() == pytest.approx(expected)


def test_a_google_benchmark_that_failed_is_no_time_of_zero() -> None:
    rows = [row for row in raw("google-benchmark-base")["benchmarks"] if row["name"] == "fails"]
    assert rows[0]["real_time"] == 0.0
    failed = by_name(found("google-benchmark-base"))["fails"]
    assert (failed.status, failed.reason, failed.samples) == ("error", "no data here", None)


def test_a_skipped_google_benchmark_is_skipped() -> None:
    document = raw("google-benchmark-base")
    document["benchmarks"] = [
        {"name": "a", "run_name": "a", "real_time": 0.0, "skipped": True, "skip_message": "no GPU"}
    ]
    (m,) = foreign.parse(Path("x"), json.dumps(document).encode()).measurements
    assert (m.status, m.reason) == ("skipped", "no GPU")


def test_google_benchmark_aggregates_are_used_where_the_repetitions_are_missing() -> None:
    rows = {row["name"]: row for row in raw("google-benchmark-aggregates")["benchmarks"]}
    summary = by_name(found("google-benchmark-aggregates"))["sort_list"].samples
    assert summary == Quartiles(
        pytest.approx(rows["sort_list_median"]["real_time"] * 1e-9),
        pytest.approx(1.349 * rows["sort_list_stddev"]["real_time"] * 1e-9),
        12,
    )


def test_a_command_of_hyperfine_that_failed_is_an_error() -> None:
    commands = by_name(found("hyperfine-base"))
    assert commands["sleep"].samples.tolist() == raw("hyperfine-base")["results"][0]["times"]
    assert (commands["false"].status, commands["false"].reason) == ("error", "exit code 1 in 12 of 12 runs")


def test_commands_of_hyperfine_that_differ_in_a_parameter_are_kept_apart() -> None:
    assert list(by_name(found("hyperfine-parameters"))) == ["seq 1000", "seq 2000"]
    document = raw("hyperfine-parameters")
    for result in document["results"]:
        result["command"] = "mine"
    named = by_name(foreign.parse(Path("x"), json.dumps(document).encode()))
    assert list(named) == ["mine (k=1)", "mine (k=2)"]


def test_the_same_command_twice_is_two_commands() -> None:
    document = raw("hyperfine-parameters")
    for result in document["results"]:
        result["command"] = "mine"
        del result["parameters"]
    named = by_name(foreign.parse(Path("x"), json.dumps(document).encode()))
    assert list(named) == ["mine", "mine (no. 2)"]
    assert [m.samples.tolist() for m in named.values()] == [result["times"] for result in document["results"]]


def test_asv_combinations_are_times_failures_or_skipped() -> None:
    results = found("asv-base")
    named = by_name(results)
    row = raw("asv-base")["results"]["bench.Range.time_sum"]
    assert named["time_sum(4000, 'list')"].samples.tolist() == row[11][2]
    assert named["time_fails(1000, 'tuple')"].status == "error"
    assert named["time_fails(1000, 'list')"].status == "ok"
    assert named["time_skipped"].status == "skipped"
    assert [note.split(": ")[1] for note in results.notes] == [
        "bench.mem_list was left out", "bench.track_ratio was left out"
    ]  # fmt: skip


def test_asv_quartiles_are_used_where_the_samples_are_missing() -> None:
    row = raw("asv-without-samples")["results"]["bench.time_sort"]
    summary = by_name(found("asv-without-samples"))["time_sort"].samples
    assert summary == Quartiles(row[0][0], pytest.approx(row[8][0] - row[7][0]), row[10][0])


def test_nvbench_summaries_and_skipped_states() -> None:
    named = by_name(found("nvbench-base"))
    small = named["Device=0 N=1024"]
    assert small.samples == Quartiles(1.5e-5, pytest.approx(1.349 * 1.5e-7), 2000)
    assert (small.device, small.env["gpu"]) == ("device 0", "NVIDIA H100 80GB HBM3")
    assert (named["Device=0 N=0"].status, named["Device=0 N=0"].reason) == ("skipped", "nothing to copy")


def with_samples(folder: Path, name: str, samples: np.ndarray) -> Path:
    """Write a file as nvbench does with --jsonbin: float32 in a folder beside it."""
    document = raw("nvbench-base")
    state = document["benchmarks"][0]["states"][0]
    state["summaries"].append({
        "tag": "nv/json/bin:nv/cold/sample_times",
        "data": [{"name": "filename", "type": "string", "value": f"elsewhere/{name}-bin/0.bin"}],
    })  # fmt: skip
    document["benchmarks"][0]["states"] = [state]
    (folder / f"{name}-bin").mkdir()
    samples.astype("<f4").tofile(folder / f"{name}-bin" / "0.bin")
    path = folder / name
    path.write_text(json.dumps(document))
    return path


def test_nvbench_samples_are_read_from_the_file_beside(tmp_path: Path) -> None:
    samples = 1.5e-5 * np.exp(0.01 * np.random.default_rng(1).standard_normal(300))
    (m,) = read(with_samples(tmp_path, "a.json", samples)).measurements
    assert m.samples.tolist() == pytest.approx(samples, rel=1e-6)


@pytest.mark.parametrize("tool", TOOLS)
def test_a_file_in_which_nothing_can_be_read_is_refused_by_name(tool: str, tmp_path: Path) -> None:
    text = (FIXTURES / f"{tool}-base.json").read_text()
    emptied = json.loads(text)
    emptied["results" if "results" in emptied else "benchmarks"] = {} if tool == "asv" else []
    path = tmp_path / "a.json"
    shutil.copy(FIXTURES / f"{tool}-base.json", path)
    assert read(path).measurements
    path.write_text(json.dumps(emptied))
    results = foreign.parse(path, path.read_bytes())
    if results is not None:
        with pytest.raises(NotComparable, match=f"holds no benchmark of {tool}"):
            read(path)
