"""Interrupted runs: kill -9, SIGTERM and Ctrl-C lose no finished record, and `--resume` completes the rest."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from mfbench.results.records import Record, read
from tests.mfbench.cli_runner import command, mfbench, mfbench_here, tiny_suite


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


@pytest.mark.slow
def test_kill_9_loses_nothing_and_resume_completes(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    process = start(tmp_path, out)
    wait_for_records(out, 4)
    time.sleep(random.random())
    process.kill()
    process.communicate()
    before = read(out)[0]
    assert len(before) >= 4
    done = mfbench(
        "run", "--suite", tiny_suite(tmp_path), "--out", out, "--threads", 1, "--budget", 0.3, "--resume", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    after, notes = read(out)
    assert notes == []
    assert after[: len(before)] == before
    assert keys(after) == WHOLE
    assert len({record.run_id for record in after}) == 1


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 64 KiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a tmpfs cannot be mounted here, which takes root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_is_told_at_once_and_loses_nothing(tmp_path: Path, small_disk: Path) -> None:
    out, filler = small_disk / "out.jsonl", small_disk / "filler"
    filler.write_bytes(bytes(48 << 10))
    options = ("--suite", tiny_suite(tmp_path), "--out", out, "--threads", 1, "--budget", 0.2, "--provider",
               "fused,autograd,closed-form")  # fmt: skip
    while True:  # until the records of a case do not fit any more
        full = mfbench("run", *options, cwd=tmp_path)
        if full.returncode:
            break
    assert full.returncode == 2
    assert f"--out: cannot write {out}: No space left on device" in full.stderr
    assert "Traceback" not in full.stderr
    before, (records, notes) = out.read_bytes(), read(out)
    assert notes == []
    assert len(records) % 3 == 0
    filler.unlink()
    done = mfbench("run", *options, "--resume", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert out.read_bytes().startswith(before)
    after, notes = read(out)
    assert notes == []
    assert len({record.key for record in after if record.run_id == after[-1].run_id}) == 9


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_device_that_takes_nothing_is_told_at_once(tmp_path: Path, monkeypatch, capsys) -> None:
    options = ("--suite", tiny_suite(tmp_path), "--size", "9x9", "--threads", 1, "--budget", 0.1, "--out", "/dev/full")
    assert mfbench_here(monkeypatch, "run", *options) == 2
    assert "--out: cannot write /dev/full: No space left on device" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_run_takes_its_workers_with_it(tmp_path: Path) -> None:
    provider = tmp_path / "hang.py"
    provider.write_text(
        "import os, time\ndef hang(*_):\n    open('pid', 'w').write(str(os.getpid()))\n    time.sleep(1e6)\n"
    )
    process = start(
        tmp_path, tmp_path / "out.jsonl", "--provider", f"{provider}:hang", "--baseline", f"{provider}:hang"
    )
    end = time.monotonic() + 60
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < end
        time.sleep(0.05)
    process.kill()
    process.communicate()
    worker = int((tmp_path / "pid").read_text())
    while psutil.pid_exists(worker) and psutil.Process(worker).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_signals_keep_finished_records(tmp_path: Path, number: int, code: int) -> None:
    out = tmp_path / "out.jsonl"
    process = start(tmp_path, out, "--budget", 2)
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
        assert "interrupted; finished records are in" in stderr
