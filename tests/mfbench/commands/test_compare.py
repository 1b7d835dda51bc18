"""`mfbench compare` on files: exit codes, notes on what was left out, and refusals."""

from __future__ import annotations

import json
import os
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mfbench.results.records import Record
from mfbench.results.writer import Writer
from tests.mfbench.cli_runner import mfbench_here
from tests.mfbench.results.test_comparison import ENV, seconds
from tests.mfbench.results.test_records import record


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
    added = [
        timed(11, provider="/some/folder/mine.py:step"),
        timed(12, status="wrong", timing=None, reason="loss is off"),
    ]
    result, out, _ = code(base, [*new, *added, timed(10)])
    assert result == 1
    assert "5 compared: 1 faster, 1 slower, 1 same, 1 broken, 1 fixed" in out
    assert "1 missing from the new side:\n  12×4" in out
    assert "2 only on the new side, not judged:\n  14×4" in out
    assert re.search(r"15×4.*: wrong\n", out)
    assert "mine.py:step" in out
    assert "/some/folder" not in out
    assert "new fused: SIGSEGV" in out
    assert "base fused: loss is off by 3" in out
    assert "different runs" in out
    assert max(map(len, out.splitlines())) <= 80


def test_undecided_cases(code) -> None:
    base, new = [timed(0), timed(1, rounds=2)], [timed(0), timed(1, 1.1e-3, rounds=2)]
    result, out, _ = code(base, new)
    assert result == 3
    assert "too few rounds" in out
    assert code(base, [timed(0, 2e-3), new[1]])[0] == 1  # a regression counts, whatever else is undecided
    assert code([timed(0)], [timed(0, 1.03e-3)])[0] == 1
    assert code([timed(0)], [timed(0, 1.03e-3)], "--margin", "0.05")[0] == 0
    assert code([timed(0)], [timed(0, 1.03e-3)], "--margin", "0.03")[0] == 3


def test_identical_files_are_the_same_whatever_the_noise(code) -> None:
    noisy = seconds(np.random.default_rng(1), 12, noise=0.5).tolist()
    timing = timed(0).timing.model_copy(update={"samples_s": noisy, "disturbed": 12})
    records = [timed(0, timing=timing), timed(1)]
    result, out, _ = code(records, records)
    assert result == 0
    assert "2 compared: 2 same" in out


def test_verdicts_of_a_busy_machine_are_explained(code) -> None:
    busy = timed(0, 1.3e-3)
    for foreign, told in (
        (None, "other programs ran in most rounds, and how many cores they took was not recorded"),
        (0.5, "other programs took 0.5 of 2 cores, so only a factor of 2.3 is a verdict"),
        (1.9, "other programs took 1.9 of 2 cores, so nothing is a verdict"),
    ):
        taken = {"disturbed": busy.timing.rounds, "foreign_cores": foreign}
        crowded = busy.model_copy(update={"timing": busy.timing.model_copy(update=taken)})
        result, out, _ = code([timed(0)], [crowded])
        assert result == 3
        assert f"fused: undecided: {told}" in " ".join(out.split())
        assert "only a factor that they cannot have caused is a verdict" in " ".join(out.split())
        assert told in json.loads(code([timed(0)], [crowded], "--json")[1])["cases"][0]["reason"]
    assert "other programs" not in code([timed(0)], [timed(0, 1.3e-3)])[1].lower()


def test_times_of_what_failed_do_not_count(code) -> None:
    assert code([timed(0)], [timed(0, status="wrong", reason="loss is off")])[0] == 1


def test_a_pipe_is_read_once(code, tmp_path: Path) -> None:
    file, pipe = write(tmp_path / "a.jsonl", [timed(0)]), tmp_path / "pipe"
    os.mkfifo(pipe)
    threading.Thread(target=lambda: pipe.write_bytes(file.read_bytes()), daemon=True).start()
    result, out, _ = code(file, pipe)
    assert result == 0
    assert "1 compared: 1 same" in out


@pytest.mark.parametrize("versions", [[1], "2.13", None])
def test_an_environment_of_another_form_is_another(code, versions: Any) -> None:
    result, _, err = code([timed(0)], [timed(0, env=ENV | {"versions": versions})])
    assert result == 4
    assert "was measured in another environment" in err


def test_disjoint_and_empty_files(code, tmp_path: Path) -> None:
    result, out, err = code([timed(0)], [timed(1)])
    assert result == 4
    assert err.endswith("have no case in common that was timed on both sides [nothing-timed]\n")
    assert "1 missing from the new side" in out
    assert "1 only on the new side, not judged" in out
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    for pair in ((empty, [timed(0)]), ([timed(0)], empty), (empty, empty)):
        result, out, err = code(*pair)
        assert (result, out) == (4, "")
        assert err.endswith("empty.jsonl (it is empty) [bad-records]\n")


@pytest.mark.parametrize("kept", [1, 2, 6])
def test_a_run_that_lost_cases_does_not_pass(code, kept: int) -> None:
    base = [timed(number) for number in range(7)]
    result, out, err = code(base, base[:kept], "--json")
    assert result == json.loads(out)["exit_code"] == 4
    assert f"new.jsonl lacks {7 - kept} case{'s' if kept < 6 else ''} of " in err
    assert err.endswith(" (--allow-missing accepts that) [missing-cases]\n")
    assert code(base, base[:kept], "--allow-missing")[0] == 0
    assert code(base[:kept], base)[0] == 0


def test_a_case_that_is_skipped_now_is_lost(code) -> None:
    skipped = timed(1, status="skipped", timing=None, reason="no memory")
    assert code([timed(0), timed(1)], [timed(0), skipped])[0] == 4


def test_lost_cases_hide_no_regression(code) -> None:
    assert code([timed(0), timed(1)], [timed(0, 2e-3)])[0] == 1
    assert code([timed(0), timed(1)], [timed(0, 2e-3)], "--allow-missing")[0] == 1
    assert code([timed(0, rounds=2), timed(1)], [timed(0, 1.1e-3, rounds=2)], "--allow-missing")[0] == 3


def test_torn_lines_are_noted_and_left_out(code, tmp_path: Path) -> None:
    torn = write(tmp_path / "torn.jsonl", [timed(0), timed(1)])
    torn.write_bytes(torn.read_bytes()[:-30])
    result, out, err = code([timed(0), timed(1)], torn, "--json", "--allow-missing")
    assert result == 0
    assert err == f"mfbench: {torn}: the last line is torn and was left out\n"
    assert [case["m"] for case in (entry["case"] for entry in json.loads(out)["missing"])] == [4]


@pytest.mark.parametrize(
    ("content", "seen"),
    [
        (b"not a record\n\xff\xfe\n[1, 2]\n42\n" * 5, "line 1 is not JSON: 'not a record'"),
        (b"user,item,rating\n1,2,3.5\n", "line 1 is not JSON: 'user,item,rating'"),
        (b"\n\n1\t2\t3", "line 3 is not JSON: '1\\t2\\t3'"),
        (b"\x00" * 1000, "line 1 is not JSON: '" + "\\x00" * 60 + "'"),
        (b'{"a":1}\n{"a":2}\n', "line 1 is not a record: '{\"a\":1}'"),
    ],
)
def test_a_file_that_holds_something_else_is_one_line(code, tmp_path: Path, content: bytes, seen: str) -> None:
    other = tmp_path / "other.txt"
    other.write_bytes(content)
    for pair in (([timed(0)], other), (other, [timed(0)])):
        result, out, err = code(*pair)
        assert (result, out) == (4, "")
        assert err == f"mfbench: not comparable: no records in {other} ({seen}) [bad-records]\n"


def test_lines_that_are_no_records_are_named_beside_those_that_are(code, tmp_path: Path) -> None:
    path = write(tmp_path / "mixed.jsonl", [timed(0)])
    path.write_bytes(b"oops\n" + path.read_bytes() + b'{"schema":1}\n')
    result, _, err = code([timed(0)], path)
    assert result == 0
    assert err.splitlines() == [
        f"mfbench: {path}: line 1 is not a record and was left out: not JSON: expected value at character 1",
        f"mfbench: {path}: line 3 is not a record and was left out: run_id: is missing",
    ]


def test_another_schema_is_refused(code, tmp_path: Path) -> None:
    newer = write(tmp_path / "newer.jsonl", [timed(0), timed(1)])
    newer.write_text(newer.read_text().replace('"schema":1', '"schema":2', 1))
    for pair in (([timed(0)], newer), (newer, newer)):
        result, out, err = code(*pair)
        assert result == 4
        assert out == ""
        assert f"{newer}: line 1 has schema 2, and this mfbench reads schema 1 [different-schema]" in err


def test_the_last_of_several_runs_counts(code, tmp_path: Path) -> None:
    result, _, err = code([timed(0, 5e-3), timed(0)], [timed(0)])
    assert result == 0
    assert err == f"mfbench: {tmp_path / 'base.jsonl'}: 1 left out: measured again further down\n"


def test_records_without_usable_samples(code) -> None:
    broken = [timed(0).timing.model_copy(update={"samples_s": samples}) for samples in ([], [1e-3, 0.0], [-1e-3] * 9)]
    for timing in (None, *broken):
        result, _, err = code([timed(0, timing=timing), timed(1)], [timed(0), timed(1)])
        assert result == 0
        assert "1 left out: status 'ok' without positive times" in err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cpu": "another"}, "cpu is another, was a cpu"),
        ({"threads": 1}, "threads is 1, was 2"),
        ({"gpu": "H100"}, "gpu is H100, was None"),
        ({"versions": ENV["versions"] | {"torch": "2.14"}}, "torch is 2.14, was 2.13"),
        ({"versions": ENV["versions"] | {"triton": "3.8"}}, "triton is 3.8, was 3.9"),
        ({"versions": ENV["versions"] | {"python": "3.12"}}, "python is 3.12, was 3.11"),
    ],
)
def test_another_environment_is_refused_without_force(code, change: dict[str, Any], message: str) -> None:
    base, new = [timed(0), timed(1)], [timed(0), timed(1, env=ENV | change)]
    result, out, err = code(base, new)
    assert result == 4
    assert message in err
    assert len(err.splitlines()) == 1
    assert out == ""
    result, out, err = code(base, new, "--force", "--json")
    assert result == 0
    assert message in err
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


@pytest.mark.parametrize(("given", "meant"), [("5", "0.05"), ("1", "0.01"), ("10.0", "0.1")])
def test_a_margin_in_per_cent_is_an_error_that_says_so(code, given: str, meant: str) -> None:
    result, out, err = code([timed(0)], [timed(0, 2e-3)], "--margin", given)
    assert (result, out) == (2, "")
    assert "--margin: expected a fraction from 0 to below 1" in err
    assert f"per cent is {meant}" in err
