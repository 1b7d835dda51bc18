"""`mfbench compare`: verdicts on simulated runs whose truth is known, and the exit codes of whole files."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.signal

from mfbench import stats
from mfbench.compare import Measurement, Quartiles, compare
from mfbench.records import Record, Writer
from tests.mfbench.commands import mfbench_here
from tests.mfbench.test_records import record

ENV = {"cpu": "a cpu", "cpus": 2, "system": "Linux 6", "threads": 2, "commit": "1234", "load": 0.3,
       "versions": {"python": "3.11", "torch": "2.13", "triton": "3.9", "mfbench": "0.1"}}  # fmt: skip
SHOCKS = {
    "normal": lambda rng, count: rng.normal(size=count),
    "t3": lambda rng, count: rng.standard_t(3, count) / 1.7,
    "skewed": lambda rng, count: rng.exponential(size=count),
}


def seconds(
    rng: np.random.Generator, rounds: int, median: float = 1e-3, noise: float = 0.01, correlation: float = 0.0,
    tails: str = "normal", drift: float = 0.0,
) -> np.ndarray:  # fmt: skip
    """Samples of a run: an AR(1) series of log times that wanders by `drift` in the course of the run."""
    shocks = SHOCKS[tails](rng, rounds + 50)
    series = scipy.signal.lfilter([1], [1, -correlation], shocks * np.sqrt(1 - correlation**2))[50:]
    return median * np.exp(noise * series + drift * np.sin(np.linspace(0, 2 * np.pi, rounds, endpoint=False)))


def one(samples: np.ndarray | Quartiles | None, number: int = 0, **changes: Any) -> Measurement:
    fields = {"case": f"case {number}", "provider": "fused", "device": "cpu", "status": "ok", "reason": None,
              "env": ENV}  # fmt: skip
    return Measurement(**(fields | changes), samples=samples)


def outcomes(base: list[np.ndarray], new: list[np.ndarray], margin: float = 0.02) -> list[str]:
    sides = ([one(samples, number) for number, samples in enumerate(side)] for side in (base, new))
    return [pair.outcome for pair in compare(*sides, margin=margin).pairs]


# The intervals and verdicts


@pytest.mark.parametrize("tails", SHOCKS)
@pytest.mark.parametrize("correlation", [0.0, 0.6])
@pytest.mark.parametrize("rounds", [(30, 30), (120, 120), (30, 400)])
def test_intervals_of_two_runs_cover_the_truth(rounds: tuple[int, int], correlation: float, tails: str) -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(300):
        base = seconds(rng, rounds[0], 3e-3, 0.02, correlation, tails)
        new = seconds(rng, rounds[1], 1e-3, 0.02, correlation, tails)
        ratio = stats.unpaired_ratio_interval(base, new)
        covered += ratio.low <= 3 <= ratio.high
    assert covered >= 0.92 * 300


@pytest.mark.parametrize("tails", SHOCKS)
@pytest.mark.parametrize("drift", [0.0, 0.02])
def test_identical_code_is_not_accused(tails: str, drift: float) -> None:
    """200 suites of 8 cases, noise of 2 % and runs of unequal length; drift is within the runs, the same in both."""
    rng = np.random.default_rng(11)
    accused = {0.0: 0, 0.02: 0}  # by margin; without one, all that protects is the family's confidence
    for _ in range(200):
        runs = [
            [seconds(rng, rounds, noise=0.02, correlation=0.5, tails=tails, drift=drift) for _ in range(8)]
            for rounds in (20, 80)
        ]
        for margin in accused:
            accused[margin] += bool({"faster", "slower"}.intersection(outcomes(*runs, margin)))
    assert accused[0.0] <= 0.14 * 200  # 5 % in the limit of many rounds; 6 blocks of skewed, correlated noise: 10 %
    assert accused[0.02] <= 0.01 * 200


def test_a_slowdown_is_found_and_more_samples_find_it_more_often() -> None:
    rng = np.random.default_rng(5)

    def found(slowdown: float, rounds: int) -> float:
        pairs = ((seconds(rng, rounds), seconds(rng, rounds, 1e-3 * (1 + slowdown))) for _ in range(100))
        return sum(outcomes([base], [new]) == ["slower"] for base, new in pairs) / 100

    power = [found(0.03, rounds) for rounds in (15, 45, 90, 400, 4000)]
    assert all(more >= fewer - 0.05 for fewer, more in itertools.pairwise(power))
    assert power[-1] == 1
    assert found(0.05, 90) == 1
    assert found(-0.05, 90) == 0


def test_the_size_of_the_family_widens_the_intervals() -> None:
    rng = np.random.default_rng(2)
    base, new = seconds(rng, 60), seconds(rng, 60)
    widths = []
    for count in (1, 10, 100):
        sides = ([one(side + 1e-12 * number, number) for number in range(count)] for side in (base, new))
        ratio = compare(*sides, margin=0.02).pairs[0].ratio
        widths.append(ratio.high - ratio.low)
    assert widths[0] < widths[1] < widths[2]


def test_a_summary_alone_says_less_than_the_samples() -> None:
    rng = np.random.default_rng(4)
    sides = []
    for median in (1e-3, 1.04e-3):
        samples = seconds(rng, 300, median)
        low, high = np.quantile(samples, [0.25, 0.75])
        sides.append((samples, Quartiles(float(np.median(samples)), float(high - low), 300)))
    (base, base_summary), (new, new_summary) = sides
    whole, summary = (compare([one(a)], [one(b)], 0.02).pairs[0] for a, b in ((base, new), (base_summary, new_summary)))
    assert whole.outcome == "slower"
    assert summary.ratio.estimate == pytest.approx(whole.ratio.estimate)
    assert summary.ratio.high - summary.ratio.low > 2 * (whole.ratio.high - whole.ratio.low)
    mixed = compare([one(base)], [one(new_summary)], 0.02).pairs[0]
    assert mixed.ratio.estimate == pytest.approx(whole.ratio.estimate)


@pytest.mark.parametrize("counts", [(1, 400), (4, 5), (5, 5), (5, 400)])
def test_few_samples_on_one_side(counts: tuple[int, int]) -> None:
    rng = np.random.default_rng(6)
    ratio = stats.unpaired_ratio_interval(*(seconds(rng, count) for count in counts), confidence=0.9999)
    assert ratio.low < 1 < ratio.high
    assert np.isfinite(ratio.high) == (min(counts) >= 5)


@pytest.mark.parametrize(
    ("base", "new", "outcome", "code"),
    [
        ("ok", "ok", "same", 0),
        ("ok", "wrong", "broken", 1),
        ("ok", "crashed", "broken", 1),
        ("ok", "timeout", "broken", 1),
        ("ok", "oom", "broken", 1),
        ("crashed", "ok", "mended", 0),
        ("wrong", "wrong", "failing", 4),
        ("ok", "skipped", None, 4),
        ("skipped", "ok", None, 4),
    ],
)
def test_a_change_of_status(base: str, new: str, outcome: str | None, code: int) -> None:
    samples = np.full(20, 1e-3)
    sides = ([one(samples if status == "ok" else None, status=status)] for status in (base, new))
    comparison = compare(*sides, margin=0.02)
    assert [pair.outcome for pair in comparison.pairs] == ([outcome] if outcome else [])
    assert comparison.exit_code == code
    assert len(comparison.missing) == (new == "skipped")
    assert len(comparison.added) == (base == "skipped")


def test_paired_samples_lose_the_drift_they_share() -> None:
    rng = np.random.default_rng(8)
    drift = np.exp(np.cumsum(rng.normal(0, 0.1, 60)))
    base, new = (drift * seconds(rng, 60, median) for median in (1e-3, 1.05e-3))
    assert compare([one(base)], [one(new)], 0.02, paired=True).pairs[0].outcome == "slower"
    assert compare([one(base)], [one(new)], 0.02).pairs[0].outcome == "inconclusive"


# Whole files


def timed(number: int, median: float = 1e-3, rounds: int = 40, **changes: Any) -> Record:
    samples = seconds(np.random.default_rng(number + int(1e7 * median)), rounds, median, noise=0.0005).tolist()
    timing = {"samples_s": samples, "median_s": float(np.median(samples)), "ci95_s": (None, None), "rounds": rounds,
              "loops": 1, "method": "made up", "cold_cache": False}  # fmt: skip
    return record(number, **({"status": "ok", "reason": None, "timing": timing, "env": ENV} | changes))


def write(path: Path, written: list[Record]) -> Path:
    path.unlink(missing_ok=True)
    writer = Writer(path)
    writer.append(written)
    writer.close()
    return path


@pytest.fixture
def code(tmp_path: Path, monkeypatch, capsys):
    """The exit code of comparing two lists of records, and what was printed."""

    def run(base: list[Record] | Path, new: list[Record] | Path, *options: str) -> tuple[int, str, str]:
        paths = [
            side if isinstance(side, Path) else write(tmp_path / f"{name}.jsonl", side)
            for name, side in (("base", base), ("new", new))
        ]
        result = mfbench_here(monkeypatch, "compare", *paths, *options)
        return result, *capsys.readouterr()

    return run


@pytest.mark.parametrize("regressions", [0, 1, 255, 256, 257])
def test_exit_code_does_not_depend_on_how_many_regressed(code, regressions: int) -> None:
    base = [timed(number, rounds=120) for number in range(257)]
    new = [timed(number, 2e-3 if number < regressions else 1.001e-3, 120) for number in range(257)]
    result, out, err = code(base, new, "--json")
    found = json.loads(out)
    assert result == found["exit_code"] == (1 if regressions else 0)
    assert found["outcomes"].get("slower", 0) == regressions
    assert found["outcomes"].get("same", 0) == 257 - regressions
    assert err == ""


def test_slower_is_about_the_new_side(code) -> None:
    base, new = [timed(0)], [timed(0, 0.5e-3)]
    result, out, _ = code(base, new)
    assert result == 0
    assert "faster" in out
    assert " 2.00" in out
    assert code(new, base)[0] == 1


def test_table_lists_everything_and_fits_a_terminal(code) -> None:
    base = [timed(n) for n in range(4)] + [timed(9), timed(10, status="wrong", timing=None, reason="loss is off by 3")]
    new = [timed(0, 1.5e-3), timed(1, 0.7e-3), timed(2), timed(3, status="crashed", timing=None, reason="SIGSEGV")]
    result, out, _ = code(base, [*new, timed(11, provider="/some/folder/mine.py:step"), timed(10)])
    assert result == 1
    assert "5 compared: 1 faster, 1 slower, 1 same, 1 broken, 1 mended" in out
    assert "1 missing from the new side, not judged:\n  12×4" in out
    assert "1 new, not judged:\n  14×4" in out
    assert "mine.py:step" in out
    assert "/some/folder" not in out
    assert "new fused: SIGSEGV" in out
    assert "base fused: loss is off by 3" in out
    assert "different runs" in out
    assert max(map(len, out.splitlines())) <= 80


def test_undecided_cases(code) -> None:
    base, new = [timed(0), timed(1, rounds=3)], [timed(0), timed(1, 1.1e-3, rounds=3)]
    result, out, _ = code(base, new)
    assert result == 3
    assert "too few rounds" in out
    assert code(base, [timed(0, 2e-3), new[1]])[0] == 1  # a regression is told, whatever else is undecided
    assert code([timed(0)], [timed(0, 1.03e-3)])[0] == 1
    assert code([timed(0)], [timed(0, 1.03e-3)], "--margin", "0.05")[0] == 0
    assert code([timed(0)], [timed(0, 1.03e-3)], "--margin", "0.03")[0] == 3


def test_identical_files_are_the_same_whatever_the_noise(code) -> None:
    noisy = seconds(np.random.default_rng(1), 12, noise=0.5).tolist()
    timing = timed(0).timing.model_copy(update={"samples_s": noisy})
    records = [timed(0, timing=timing), timed(1)]
    result, out, _ = code(records, records)
    assert result == 0
    assert "2 compared: 2 same" in out


def test_disjoint_and_empty_files(code, tmp_path: Path) -> None:
    result, out, err = code([timed(0)], [timed(1)])
    assert result == 4
    assert "nothing to compare" in err
    assert "1 missing from the new side" in out
    assert "1 new, not judged" in out
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    for pair in ((empty, [timed(0)]), ([timed(0)], empty), (empty, empty)):
        assert code(*pair)[0] == 4


def test_missing_cases_are_no_regression(code) -> None:
    assert code([timed(0), timed(1)], [timed(0)])[0] == 0


def test_torn_lines_are_told_and_left_out(code, tmp_path: Path) -> None:
    torn = write(tmp_path / "torn.jsonl", [timed(0), timed(1)])
    torn.write_bytes(torn.read_bytes()[:-30])
    result, out, err = code([timed(0), timed(1)], torn, "--json")
    assert result == 0
    assert err == f"mfbench: {torn}: the last line is torn and was left out\n"
    assert [case["m"] for case in (entry["case"] for entry in json.loads(out)["missing"])] == [4]


def test_files_that_hold_something_else(code, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_bytes(b"not a record\n\xff\xfe\n[1, 2]\n42\n" * 5)
    result, _, err = code([timed(0)], other)
    assert result == 4
    assert "line 1 is no record" in err
    assert "15 more notes" in err
    assert "Traceback" not in err


def test_another_schema_is_refused(code, tmp_path: Path) -> None:
    newer = write(tmp_path / "newer.jsonl", [timed(0), timed(1)])
    newer.write_text(newer.read_text().replace('"schema":1', '"schema":2', 1))
    for pair in (([timed(0)], newer), (newer, newer)):
        result, out, err = code(*pair)
        assert result == 4
        assert out == ""
        assert err == f"mfbench: not comparable: {newer}: line 1 has schema 2, and this mfbench reads schema 1\n"


def test_the_last_of_several_runs_counts(code, tmp_path: Path) -> None:
    result, _, err = code([timed(0, 5e-3), timed(0)], [timed(0)])
    assert result == 0
    assert err == f"mfbench: {tmp_path / 'base.jsonl'}: 1 left out, whose case was measured again further down\n"


def test_records_without_usable_samples(code) -> None:
    broken = [timed(0).timing.model_copy(update={"samples_s": samples}) for samples in ([], [1e-3, 0.0], [-1e-3] * 9)]
    for timing in (None, *broken):
        result, _, err = code([timed(0, timing=timing), timed(1)], [timed(0), timed(1)])
        assert result == 0
        assert "1 left out, which are ok but have no positive times" in err


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"cpu": "another"}, "cpu is another, was a cpu"),
        ({"threads": 1}, "threads is 1, was 2"),
        ({"gpu": "H100"}, "gpu is H100, was None"),
        ({"versions": ENV["versions"] | {"torch": "2.14"}}, "torch is 2.14, was 2.13"),
        ({"versions": ENV["versions"] | {"triton": "3.8"}}, "triton is 3.8, was 3.9"),
        ({"versions": ENV["versions"] | {"python": "3.12"}}, "python is 3.12, was 3.11"),
    ],
)
def test_another_environment_is_refused_without_force(code, change: dict[str, Any], told: str) -> None:
    base, new = [timed(0), timed(1)], [timed(0), timed(1, env=ENV | change)]
    result, out, err = code(base, new)
    assert result == 4
    assert told in err
    assert len(err.splitlines()) == 1
    assert out == ""
    result, out, err = code(base, new, "--force", "--json")
    assert result == 0
    assert told in err
    assert len(json.loads(out)["environment"]) == 1


def test_the_code_itself_is_no_environment(code) -> None:
    change = {"commit": "5678", "dirty": True, "load": 3.0, "versions": ENV["versions"] | {"mfbench": "0.2"}}
    assert code([timed(0)], [timed(0, env=ENV | change)])[0] == 0


def test_usage_errors(code, tmp_path: Path) -> None:
    for pair in ((tmp_path / "none.jsonl", [timed(0)]), ([timed(0)], tmp_path)):
        result, _, err = code(*pair)
        assert result == 2
        assert "cannot be read" in err
        assert len(err.splitlines()) == 1
    assert code([timed(0)], [timed(0)], "--margin", "-1")[0] == 2


# pytest-benchmark's files


def report(path: Path, medians: dict[str, float], data: bool = True, cpu: str = "a cpu") -> Path:
    rng = np.random.default_rng(len(medians) + int(1e6 * sum(medians.values())))
    benchmarks = []
    for name, median in medians.items():
        group, _, test = name.rpartition("/")
        samples = seconds(rng, 200, median, noise=0.002)
        low, high = np.quantile(samples, [0.25, 0.75])
        kept = {"median": float(np.median(samples)), "iqr": float(high - low), "rounds": 200, "mean": 1.0}
        benchmarks.append({"group": group or None, "name": test, "fullname": f"tests/test_x.py::{test}",
                           "stats": kept | ({"data": samples.tolist()} if data else {})})  # fmt: skip
    machine = {"python_version": "3.11", "system": "Linux", "release": "6", "cpu": {"brand_raw": cpu, "count": 2}}
    path.write_text(json.dumps({"machine_info": machine, "benchmarks": benchmarks, "version": "5.3.1"}, indent=4))
    return path


@pytest.mark.parametrize("data", [True, False])
def test_pytest_benchmark_on_both_sides(code, tmp_path: Path, data: bool) -> None:
    base = report(tmp_path / "a.json", {"small/fused": 1e-3, "small/autograd": 5e-3, "test_alone": 2e-3}, data)
    new = report(tmp_path / "b.json", {"small/fused": 2e-3, "small/autograd": 5e-3, "large/fused": 1.0}, data)
    result, out, err = code(base, new, "--json")
    found = json.loads(out)
    assert result == 1
    assert err == ""
    assert [(entry["case"], entry["provider"], entry["outcome"]) for entry in found["cases"]] == [
        ("small", "fused", "slower"), ("small", "autograd", "same")
    ]  # fmt: skip
    assert [(entry["case"], entry["provider"]) for entry in found["missing"]] == [("tests/test_x.py", "test_alone")]
    assert [(entry["case"], entry["provider"]) for entry in found["added"]] == [("large", "fused")]
    assert code(base, base)[0] == 0
    assert "small" in code(base, new)[1]


def test_pytest_benchmark_on_another_machine(code, tmp_path: Path) -> None:
    base = report(tmp_path / "a.json", {"fused": 1e-3})
    new = report(tmp_path / "b.json", {"fused": 1e-3}, cpu="another")
    result, _, err = code(base, new)
    assert result == 4
    assert "cpu is another, was a cpu" in err
    assert code(base, new, "--force")[0] == 0


def test_pytest_benchmark_with_fields_missing_or_against_records(code, tmp_path: Path) -> None:
    good, bad = report(tmp_path / "a.json", {"fused": 1e-3}), tmp_path / "bad.json"
    bad.write_text(good.read_text().replace('"iqr"', '"range"'))
    result, _, err = code(good, bad)
    assert result == 4
    assert "benchmarks.0.stats.iqr: Field required" in err
    result, _, err = code(good, [timed(0)])
    assert result == 4
    assert "they measure in different ways" in err
