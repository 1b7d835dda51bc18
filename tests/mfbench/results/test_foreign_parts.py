"""Other tools' results of which a part failed, is missing or is in another unit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mfbench.results import foreign
from mfbench.results.comparison import Comparison, Measurement, Quartiles
from mfbench.results.judging import judged, read

NAN = float("nan")
TIMES = (1e-3 * np.exp(0.001 * np.random.default_rng(3).standard_normal(200))).tolist()  # seconds


def parsed(document: dict[str, Any]) -> foreign.ToolResults:
    results = foreign.parse(Path("x.json"), json.dumps(document).encode())
    assert results is not None
    return results


def named(document: dict[str, Any]) -> dict[str, Measurement]:
    return {m.provider: m for m in parsed(document).measurements}


def compared(folder: Path, base: dict[str, Any], new: dict[str, Any]) -> Comparison:
    for name, document in (("base", base), ("new", new)):
        (folder / f"{name}.json").write_text(json.dumps(document))
    return judged(read(folder / "base.json"), read(folder / "new.json"), 0.02)


# ------------------------------------------------------------------ pyperf


def pyperf(*benchmarks: dict[str, Any], **shared: Any) -> dict[str, Any]:
    return {"version": "1.0", "metadata": shared, "benchmarks": list(benchmarks)}


def test_pyperf_runs_that_only_warmed_up_or_calibrated_have_no_times() -> None:
    warm = {"metadata": {"calibrate_loops": 4}, "warmups": [[1, 5.0], [4, 4.0]]}
    timed = {"metadata": {}, "values": [1.0, 1.1], "warmups": [[4, 9.0]]}
    document = pyperf(
        {"metadata": {"name": "a"}, "runs": [warm, timed, timed | {"values": [1.2]}]},
        {"metadata": {"name": "b"}, "runs": [warm]},
        unit="second",
    )
    assert named(document)["a"].samples.tolist() == [1.0, 1.1, 1.2]
    assert list(named(document)) == ["a"]
    assert parsed(document).notes == ["x.json: b was left out: a time of it is zero or missing"]


@pytest.mark.parametrize("unit", ["byte", "integer"])
def test_pyperf_keeps_the_unit_of_all_benchmarks_once(unit: str) -> None:
    runs = [{"values": [7e6, 8e6]}]
    document = pyperf(
        {"metadata": {"name": "a"}, "runs": runs},
        {"metadata": {"name": "b", "unit": "second"}, "runs": runs},
        unit=unit,
    )
    assert list(named(document)) == ["b"]
    assert parsed(document).notes == [f"x.json: a was left out: its unit is {unit}, not seconds"]


# ------------------------------------------------------------------ Google Benchmark


def google(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"context": {"num_cpus": 2}, "benchmarks": list(rows)}


def repetitions(name: str, times: list[float], unit: str = "ns") -> list[dict[str, Any]]:
    return [
        {"name": name, "run_name": name, "run_type": "iteration", "repetitions": len(times), "repetition_index": index,
         "real_time": time, "time_unit": unit} for index, time in enumerate(times)
    ]  # fmt: skip


def aggregates(run: str, **values: float) -> list[dict[str, Any]]:
    return [
        {"name": f"{run}_{name}", "run_name": run, "run_type": "aggregate", "repetitions": 40, "aggregate_name": name,
         "aggregate_unit": "percentage" if name == "cv" else "time", "real_time": value, "time_unit": "us"}
        for name, value in values.items()
    ]  # fmt: skip


def test_other_aggregates_of_google_benchmark_are_no_times() -> None:
    complexity = [
        {"name": "a_BigO", "run_name": "a", "run_type": "aggregate", "aggregate_name": "BigO", "real_coefficient": 7.5,
         "big_o": "N", "time_unit": "ns"},
        {"name": "a_RMS", "run_name": "a", "run_type": "aggregate", "aggregate_name": "RMS", "rms": 0.01},
    ]  # fmt: skip
    document = google(*aggregates("a/8", mean=3.1, median=3.0, stddev=0.2, cv=0.064, p99=9.0), *complexity)
    assert named(document)["a/8"].samples == Quartiles(pytest.approx(3e-6), pytest.approx(1.349 * 0.2e-6), 40)
    assert list(named(document)) == ["a/8"]
    assert len(parsed(document).notes) == 1


def test_aggregates_of_old_versions_are_told_by_their_names() -> None:
    """Before 1.5 no row had a type, so that a standard deviation was a benchmark like any other."""
    rows = repetitions("a", [3.0, 3.1, 3.2]) + aggregates("a", mean=3.1, median=3.1, stddev=0.1)
    for row in rows:
        del row["run_name"], row["run_type"]
    found = named(google(*rows))
    assert list(found) == ["a"]
    assert found["a"].samples.tolist() == pytest.approx([3e-9, 3.1e-9, 3.2e-9])
    lone = {"name": "a_mean", "real_time": 5.0}
    assert list(named(google(lone))) == ["a_mean"]


@pytest.mark.parametrize("failed", [0, 1, 2])
def test_a_google_benchmark_of_which_one_repetition_failed_has_failed(failed: int) -> None:
    rows = repetitions("a", [3.0, 3.1, 3.2])
    rows[failed] |= {"real_time": 0.0, "error_occurred": True, "error_message": "lost the device"}
    assert (named(google(*rows))["a"].status, named(google(*rows))["a"].reason) == ("error", "lost the device")


@pytest.mark.parametrize(("factor", "outcome"), [(1.0, "same"), (2.0, "slower")])
@pytest.mark.parametrize("units", [("ns", "us"), ("s", "ms"), ("ms", "ns")])
def test_sides_and_benchmarks_in_different_units(tmp_path: Path, units, factor: float, outcome: str) -> None:
    scale = {"ns": 1e9, "us": 1e6, "ms": 1e3, "s": 1.0}

    def side(first: str, second: str, factor: float) -> dict[str, Any]:
        rows = [[time * scale[unit] * factor for time in TIMES] for unit in (first, second)]
        return google(*repetitions("a", rows[0], first), *repetitions("b", rows[1], second))

    pairs = compared(tmp_path, side(*units, 1.0), side(*reversed(units), factor * 1.0001)).pairs
    assert [pair.outcome for pair in pairs] == [outcome] * 2
    assert [pair.ratio.estimate for pair in pairs] == pytest.approx([1 / factor] * 2, rel=1e-3)


# ------------------------------------------------------------------ hyperfine


def hyperfine(command: str, **fields: Any) -> dict[str, Any]:
    return {"command": command, "mean": 0.2, "stddev": 0.01, "median": 0.2, "min": 0.1, "max": 0.3} | fields


def test_a_command_of_hyperfine_that_a_signal_ended_once_is_an_error(tmp_path: Path) -> None:
    good = {"results": [hyperfine("a", times=TIMES, exit_codes=[0] * 200, memory_usage_byte=[1] * 200)]}
    bad = {"results": [hyperfine("a", times=TIMES, exit_codes=[0, None] + [0] * 198)]}
    (pair,) = compared(tmp_path, good, bad).pairs
    assert (pair.outcome, pair.new.reason) == ("broken", "ended by a signal in 1 of 200 runs")


def test_a_summary_of_hyperfine_without_its_runs_decides_nothing(tmp_path: Path) -> None:
    """Files of its first versions hold neither times nor exit codes, and so not how many runs there were."""
    base, new = ({"results": [hyperfine("a", mean=mean)]} for mean in (0.2, 0.9))
    (pair,) = compared(tmp_path, base, new).pairs
    assert (pair.outcome, pair.base.median_s, pair.new.median_s) == ("inconclusive", 0.2, 0.9)


# ------------------------------------------------------------------ asv

ASV_COLUMNS = ["result", "params", "version", "started_at", "duration", "stats_ci_99_a", "stats_ci_99_b", "stats_q_25",
               "stats_q_75", "stats_number", "stats_repeat", "samples", "profile"]  # fmt: skip


def asv(**rows: list[Any]) -> dict[str, Any]:
    return {"result_columns": ASV_COLUMNS, "results": {f"bench.{name}": row for name, row in rows.items()}}


def test_asv_combinations_that_were_not_selected_are_no_failures() -> None:
    """`--bench 'time_a\\(2'` writes NaN for the others, and their samples are null."""
    params = [["1", "2", "3"]]
    quartiles = [[0.9, None, None], [1.1, None, None], [1, None, None], [10, None, None]]
    document = asv(time_a=[[1.0, NAN, None], params, "v", 1, 1.0, None, None, *quartiles, [None, None, None]])
    found = named(document)
    assert found["time_a(1)"].samples == Quartiles(1.0, pytest.approx(0.2), 10)
    assert {name: m.status for name, m in found.items()} == {
        "time_a(1)": "ok", "time_a(2)": "skipped", "time_a(3)": "error",
    }  # fmt: skip


def test_an_asv_benchmark_that_failed_as_a_whole_is_a_failure_of_each_combination() -> None:
    document = asv(time_a=[None, [["1", "2"], ["'x'"]]], time_b=[None, []], timeraw_c=[[2.0], [], "v"])
    assert {name: m.status for name, m in named(document).items()} == {
        "time_a(1, 'x')": "error", "time_a(2, 'x')": "error", "time_b": "error", "timeraw_c": "ok",
    }  # fmt: skip


def test_an_asv_case_that_was_skipped_on_the_new_side_is_missing(tmp_path: Path) -> None:
    """NaN compares with nothing, and would pass as no regression."""
    rows = [[[median, 1.0], [["1", "2"]], "v"] for median in (1.0, NAN)]
    comparison = compared(tmp_path, asv(time_a=rows[0]), asv(time_a=rows[1]))
    assert [m.provider for m in comparison.missing] == ["time_a(1)"]
    assert comparison.exit_code == 4


# ------------------------------------------------------------------ nvbench


def nvbench(**states: dict[str, Any]) -> dict[str, Any]:
    return {"benchmarks": [{"name": "copy", "states": [{"name": name, "device": 0} | s for name, s in states.items()]}]}


def summaries(**values: str) -> list[dict[str, Any]]:
    tags = {
        "count": "nv/cold/sample_size",
        "mean": "nv/cold/time/gpu/mean",
        "spread": "nv/cold/time/gpu/stdev/relative",
    }
    return [
        {"tag": tags[name], "data": [{"name": "value", "type": "float64", "value": value}]}
        for name, value in values.items()
    ]


@pytest.mark.parametrize("spread", ["inf", "-nan", "n/a", None])
def test_nvbench_times_of_unknown_spread_decide_nothing(tmp_path: Path, spread: str | None) -> None:
    """One sample has no deviation; nvbench writes it as inf."""
    known = {} if spread is None else {"spread": spread}
    base, new = (nvbench(a={"summaries": summaries(count="1", mean=mean, **known)}) for mean in ("2e-05", "3e-05"))
    (pair,) = compared(tmp_path, base, new).pairs
    assert (pair.outcome, pair.base.median_s, pair.new.median_s) == ("inconclusive", 2e-5, 3e-5)
    many = nvbench(
        a={"summaries": summaries(count="5000", mean="2e-05", **({} if spread is None else {"spread": spread}))}
    )
    assert compared(tmp_path, many, new).pairs[0].outcome == "inconclusive"


def test_nvbench_states_without_a_time_of_their_own_are_left_out_by_name() -> None:
    document = nvbench(
        skipped={"summaries": None, "is_skipped": True, "skip_reason": "N is odd"},
        on_the_cpu={"device": None, "summaries": [{"tag": "nv/cpu_only/sample_size", "data": None}]},
        infinite={"summaries": summaries(count="nan", mean="inf")},
        good={"summaries": summaries(count="100", mean="1e-5", spread="0.01")},
    )
    assert {name: m.status for name, m in named(document).items()} == {"skipped": "skipped", "good": "ok"}
    assert named(document)["skipped"].reason == "N is odd"
    assert [note.split(": ")[1] for note in parsed(document).notes] == [
        "copy on_the_cpu was left out", "copy infinite was left out"
    ]  # fmt: skip
