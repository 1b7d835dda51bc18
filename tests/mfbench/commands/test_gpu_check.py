"""`gpu-check` end to end: Triton's interpreter in the place of the GPU, the simulated device in that of its clock."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mfbench.commands import gpu_check
from mfbench.gpu_check import random_problems, run, times
from mfbench.gpu_check.options import CheckOptions
from mfbench.installation import ROOT
from mfbench.results import records
from tests.mfbench.gpu_check.conftest import planted as planted
from tests.mfbench.gpu_check.stand_in import StandIn, without_compiler

PARTS = ("machine", "equivalence", "determinism", "graph and stream", "times", "the rest")
SUITES = {"gpu-check-equivalence", "gpu-check-graph", "gpu-check"}


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(gpu_check, "Gpu", StandIn)
    monkeypatch.setattr(times, "BUILTIN", without_compiler())
    monkeypatch.setattr(random_problems, "PROBLEMS", 2)
    return tmp_path / "check.jsonl"


@pytest.mark.slow
@pytest.mark.interpret
def test_a_whole_check(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.command(CheckOptions(out=out, seconds=3000)) == 0
    text = capsys.readouterr().out
    assert text == out.with_suffix(".txt").read_text()
    lines = text.splitlines()
    assert lines[0].startswith("RIGHT: all ")
    assert len(lines) < 100
    assert [line for line in lines if line.startswith(PARTS)][1:] == list(PARTS[1:])
    found, notes = records.read(out)
    assert notes == []
    assert {record.case.suite for record in found} == SUITES
    assert {record.status for record in found} == {"ok"}
    assert len({record.key for record in found}) == len(found)
    assert "fused-ieee-graph" in out.with_suffix(".html").read_text()


@pytest.mark.interpret
def test_a_wrong_kernel_ends_with_1_and_is_in_the_first_line(
    out: Path, planted: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def few(context):
        return [task for task in run.equivalence(context) if task.name in ("ieee rank 30", "tf32x3 rank 30")]

    monkeypatch.setattr(run, "CHECKS", (few,))
    assert gpu_check.command(CheckOptions(out=out, seconds=3000)) == 1
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("WRONG: 1 of 2 checks on a simulated GPU")
    assert "; first tf32x3 rank 30: item_factors is off by" in first
    assert [record.status for record in records.read(out)[0]] == ["ok", "wrong"]


@pytest.mark.interpret
def test_when_time_runs_out_what_was_left_out_is_named(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.command(CheckOptions(out=out, seconds=10)) == 1  # a task is begun only with 10 s left
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("INCOMPLETE: nothing wrong in 0 checks")
    assert "from float64 in plain PyTorch on" in lines[0]
    left_out = lines[lines.index("left out") :]
    assert [line.split(":")[0].strip() for line in left_out[1:]] == list(PARTS[1:])


def command(out: Path, *arguments: str) -> subprocess.Popen[str]:
    program = [sys.executable, "-m", "tests.mfbench.gpu_check.stand_in", "--out", str(out), *arguments]
    return subprocess.Popen(
        program, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.interpret
def test_a_kill_loses_no_finished_record(tmp_path: Path) -> None:
    out = tmp_path / "check.jsonl"
    with command(out, "--seconds", "3000") as process:
        deadline = time.monotonic() + 250
        while (not out.exists() or out.read_bytes().count(b"\n") < 5) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    found, _ = records.read(out)
    assert len(found) >= 5
    assert {record.status for record in found} == {"ok"}


NEVER_ENDS = """
import sys, time
from pathlib import Path
from mfbench.commands import gpu_check
from mfbench.gpu_check import run
from mfbench.gpu_check.options import CheckOptions
from mfbench.gpu_check.task import Task
from tests.mfbench.gpu_check.stand_in import StandIn

gpu_check.Gpu, gpu_check.GRACE_S = StandIn, -8.0
run.CHECKS = (lambda context: [Task("equivalence", "hangs", lambda: time.sleep(1000), seconds=1.0)],)
gpu_check.command(CheckOptions(out=Path(sys.argv[1]), seconds=10))
"""


@pytest.mark.slow
def test_a_kernel_that_never_ends_ends_with_a_summary(tmp_path: Path) -> None:
    program = [sys.executable, "-c", NEVER_ENDS, str(tmp_path / "check.jsonl")]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("WRONG: a check did not end in time after 0 checks")
    assert "  equivalence: hangs did not end in time" in lines
