"""Interrupted runs: kill -9, SIGTERM and Ctrl-C lose no finished record, and `--resume` completes the rest."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from mfbench.records import Record, read
from tests.mfbench.commands import command, mfbench, mfbench_here, tiny_suite


def keys(records: list[Record]) -> list[tuple]:
    return sorted((record.case.m, record.provider) for record in records)


WHOLE = sorted((m, provider) for m in (30, 41, 64) for provider in ("fused", "autograd"))


def start(tmp_path: Path, out: Path, *more: object) -> subprocess.Popen[str]:
    arguments = command("run", "--suite", tiny_suite(tmp_path), "--out", out, "--threads", 1, "--budget", 0.5, *more)
    return subprocess.Popen(arguments, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_records(out: Path, count: int) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if out.exists() and out.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.02)
    raise AssertionError("no record came")


@pytest.mark.parametrize("finished", [0, 4])
def test_kill_9_loses_nothing_and_resume_completes(tmp_path: Path, finished: int) -> None:
    out = tmp_path / "out.jsonl"
    process = start(tmp_path, out)
    wait_for_records(out, finished)
    time.sleep(random.random())
    process.kill()
    process.communicate()
    before = read(out)[0] if out.exists() else []
    assert len(before) >= finished
    done = mfbench(
        "run", "--suite", tiny_suite(tmp_path), "--out", out, "--threads", 1, "--budget", 0.3, "--resume", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    after, notes = read(out)
    assert notes == []
    assert after[: len(before)] == before
    assert keys(after) == WHOLE
    assert len({record.run_id for record in after}) == 1


def test_resume_measures_only_what_is_missing_in_a_case(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    mfbench("run", "--suite", tiny_suite(tmp_path), "--out", out, "--threads", 1, "--budget", 0.2, cwd=tmp_path)
    lines = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join(lines[:3]) + lines[3][:100])  # the second case lost its baseline, the third is missing
    mfbench(
        "run", "--suite", tiny_suite(tmp_path), "--out", out, "--threads", 1, "--budget", 0.2, "--resume", cwd=tmp_path
    )
    after, notes = read(out)
    assert notes == []
    assert keys(after) == WHOLE
    assert out.read_bytes().startswith(b"".join(lines[:3]))


def test_resume_refuses_a_run_of_other_cases(tmp_path: Path, monkeypatch, capsys) -> None:
    out = tmp_path / "out.jsonl"
    mfbench_here(monkeypatch, "run", "--suite", tiny_suite(tmp_path), "--size", "5x5", "--provider", "autograd",
                 "--budget", 0.1, "--threads", 1, "--out", out)  # fmt: skip
    capsys.readouterr()
    assert mfbench_here(monkeypatch, "run", "--suite", "seed", "--resume", "--out", out) == 2
    assert "is of suite 'tiny', not 'seed'" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_keep_finished_records(tmp_path: Path, number: int, code: int) -> None:
    out = tmp_path / "out.jsonl"
    process = start(tmp_path, out, "--budget", 5)
    wait_for_records(out, 2)
    asked = time.monotonic()
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert time.monotonic() - asked < 10
    assert process.returncode == code
    assert "Traceback" not in stderr
    records, notes = read(out)
    assert notes == []
    assert len(records) >= 2
    if number == signal.SIGINT:
        assert "30×40" in stdout  # the table so far
