"""Runs that lost cases, and files that lost their end, do not pass for runs without a regression."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.mfbench.cli_runner import mfbench_here
from tests.mfbench.commands.test_compare import code, timed, write

__all__ = ["code"]


def without_times(number: int, status: str) -> object:
    return timed(number, status=status, timing=None, reason=f"made to be {status}")


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_cases_that_were_skipped_on_the_new_side_are_missing(code, lost: int) -> None:
    base = [timed(number) for number in range(4)]
    new = [without_times(number, "skipped") for number in range(lost)] + base[lost:]
    result, out, err = code(base, new, "--json")
    assert result == 4
    assert f"lacks {lost} case{'s' if lost > 1 else ''} of " in err
    assert len(json.loads(out)["missing"]) == lost
    assert code(base, new, "--allow-missing")[0] == 0


@pytest.mark.parametrize("status", ["skipped", "oom", "timeout", "crashed"])
def test_two_sides_without_a_time_are_no_success(code, status: str) -> None:
    both = [without_times(number, status) for number in range(2)]
    for options in ((), ("--allow-missing",)):
        result, _, err = code(both, both, *options)
        assert result == 4
        assert err.endswith("have no case in common that was timed on both sides [nothing-timed]\n")


@pytest.mark.parametrize("status", ["oom", "timeout", "crashed", "wrong", "error"])
def test_a_case_that_fails_now_is_a_regression_beside_a_missing_one(code, status: str) -> None:
    base = [timed(number) for number in range(3)]
    assert code(base, [timed(0), without_times(1, status)])[0] == 1
    assert code([without_times(1, status), timed(0)], [timed(1), timed(0)])[0] == 0


@pytest.mark.parametrize("tail", [b"\x00" * 512, b"\x00" * 512 + b"\n", b"\xff", b'{"schema"'])
def test_what_a_crash_of_the_machine_left_behind_is_named(code, tmp_path: Path, tail: bytes) -> None:
    path = write(tmp_path / "crashed.jsonl", [timed(0), timed(1)])
    path.write_bytes(path.read_bytes() + tail)
    result, out, err = code([timed(0), timed(1)], path, "--json")
    assert result == 0
    assert len(json.loads(out)["cases"]) == 2
    assert err.count("was left out") == 1


@pytest.mark.parametrize("given", ["2%", "0,05", "nan", "inf", "-0.02", "two"])
def test_a_margin_that_is_no_fraction_is_refused(code, given: str) -> None:
    result, out, err = code([timed(0)], [timed(0, 2e-3)], f"--margin={given}")
    assert (result, out, len(err.splitlines())) == (2, "", 1)
    assert "--margin" in err


@pytest.mark.parametrize("form", ["csv", "html"])
def test_a_report_of_failures_alone_shows_them(tmp_path: Path, monkeypatch, form: str) -> None:
    path, out = write(tmp_path / "r.jsonl", [without_times(0, "crashed")]), tmp_path / f"page.{form}"
    assert mfbench_here(monkeypatch, "report", path, "--out", out) == 0
    assert "made to be crashed" in out.read_text()
