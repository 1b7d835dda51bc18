"""`train_kills`: resumed training ends as undisturbed training does, and what went wrong is counted."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from mfbench.train.loop import run_training
from mfbench.train.options import TrainOptions
from tests.studies import train_kills
from tests.studies.train_kills import kill_and_resume, last_number, unreadable

SHORT = ["--data", "seed", "--epochs", "2000", "--every", "500"]


@pytest.mark.processes
def test_killed_and_resumed_training_ends_with_the_same_loss(tmp_path: Path) -> None:
    outcome = kill_and_resume(
        tmp_path, kills=2, seed=random.randrange(1 << 30), longest_s=2, training=SHORT, checkpoint_every=100
    )
    assert outcome.flawless, outcome
    assert outcome.kills == 2


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    run_training(TrainOptions(size=(9, 7), rank=2, epochs=30, checkpoint=tmp_path / "run", checkpoint_every=10))
    return tmp_path / "run"


def test_damaged_checkpoints_are_counted(checkpoints: Path) -> None:
    assert (last_number(checkpoints), unreadable(checkpoints)) == (3, 0)
    (checkpoints / "000003-epoch-30" / "__0_0.distcp").write_bytes(b"")
    assert unreadable(checkpoints) == 1
    (checkpoints / "000002-epoch-20" / "run.json").unlink()
    assert unreadable(checkpoints) == 2


def test_another_loss_and_a_lost_checkpoint_are_counted(
    tmp_path: Path, checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([1.0, 0.0, 1.00001])  # undisturbed, killed, resumed
    killed = False

    def start(processes: int, arguments: Sequence[object], folder: Path) -> subprocess.Popen[bytes]:
        (folder / "out.json").write_text(json.dumps({"entries": [{"loss": next(losses)}]}))
        first = "--checkpoint" in arguments and not killed
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)" if first else ""])

    def kill(process: subprocess.Popen[bytes], rng: random.Random) -> None:
        nonlocal killed
        process.kill()
        process.wait()
        shutil.rmtree(checkpoints / "000003-epoch-30")
        killed = True

    monkeypatch.setattr(train_kills, "start", start)
    monkeypatch.setattr(train_kills, "kill_one", kill)
    monkeypatch.setattr(train_kills, "STARTING", 1.0)
    outcome = kill_and_resume(tmp_path, kills=1, seed=1, longest_s=0.6)
    assert (outcome.kills, outcome.finished, outcome.differing, outcome.lost) == (1, 1, 1, 1)
    assert not outcome.flawless
    assert outcome.largest == pytest.approx(1e-5, rel=1e-3)
