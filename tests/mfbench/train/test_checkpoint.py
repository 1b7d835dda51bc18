"""A run that was interrupted and resumed ends as an undisturbed one."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mfbench.errors import UsageError
from mfbench.train import loop
from mfbench.train.history import LogEntry, TrainingRun
from mfbench.train.loop import run_training
from mfbench.train.options import TrainOptions
from mfbench.train.rates import default_rate
from tests import cuda_graphs

EPOCHS, EVERY = 130, 20
SEED = {"data": "seed", "size": (21, 34), "rank": 3, "epochs": EPOCHS, "every": EVERY}


class Stopped(Exception):
    """Stands for a kill, in this process."""


def stop_at(epoch: int) -> Any:
    def on_entry(entry: LogEntry) -> None:
        if entry.epoch >= epoch:
            raise Stopped

    return on_entry


def interrupted(options: dict[str, Any], epoch: int) -> None:
    with pytest.raises(Stopped):
        run_training(TrainOptions(**options), stop_at(epoch))


def lines(run: TrainingRun) -> list[tuple[float, ...]]:
    """Return the entries without their times, NaN as text."""
    return [tuple(map(str, entry[:-1])) for entry in run.entries]


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam", "preconditioned"])
@pytest.mark.parametrize("every", [7, 50])
def test_a_resumed_run_ends_as_an_undisturbed_one(
    optimizer: str, every: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {**SEED, "optimizer": optimizer}
    expected = run_training(TrainOptions(**given, save=tmp_path / "expected.pt"))
    saving = {**given, "checkpoint": tmp_path / "run", "checkpoint_every": every, "save": tmp_path / "saved.pt"}
    interrupted(saving, 80)
    interrupted({**saving, "resume": True}, 120)
    run = run_training(TrainOptions(**saving, resume=True))
    assert lines(run) == lines(expected)
    assert run.learning_rate == expected.learning_rate
    ours, theirs = (torch.load(tmp_path / name, weights_only=True) for name in ("saved.pt", "expected.pt"))
    for name, value in theirs.items():
        assert torch.equal(ours[name], value) if isinstance(value, torch.Tensor) else ours[name] == value
    seconds = [entry.seconds for entry in run.entries]
    assert seconds == sorted(seconds)
    notes = capsys.readouterr().err
    assert f"continuing at epoch {80 // every * every}, from {tmp_path / 'run'}" in notes
    assert "torch.distributed" not in notes
    assert len(names(tmp_path / "run")) == 2


def test_epochs_of_a_graph_go_on_from_the_restored_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a stand-in for PyTorch's graphs: nothing here ran on a GPU."""
    given = {**SEED, "optimizer": "momentum", "provider": "autograd", "every": 60}
    expected = run_training(TrainOptions(**given))
    made = cuda_graphs.install(monkeypatch)
    saving = {**given, "checkpoint": tmp_path / "run", "checkpoint_every": 50}
    interrupted(saving, 60)
    run = run_training(TrainOptions(**saving, resume=True))
    assert lines(run) == lines(expected)
    assert all(graph.replays for graph in made)
    assert len(made) == 2


@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_patience_and_the_best_parameters_go_on(rating_file: str, layout: str, tmp_path: Path) -> None:
    given = {"data": rating_file, "rank": 8, "reg": 0.01, "every": 10, "patience": 3, "layout": layout}
    expected = run_training(TrainOptions(**given, save=tmp_path / "expected.pt"))
    best, last = expected.best.epoch, expected.entries[-1].epoch
    assert best < last < 500  # the kill comes between the best entry and the end
    saving = {**given, "checkpoint": tmp_path / "run", "checkpoint_every": 5}
    interrupted(saving, best + 10)
    run = run_training(TrainOptions(**saving, resume=True, save=tmp_path / "saved.pt"))
    assert lines(run) == lines(expected)
    ours, theirs = (torch.load(tmp_path / name, weights_only=True) for name in ("saved.pt", "expected.pt"))
    assert torch.equal(ours["user_factors"], theirs["user_factors"])


def test_a_finished_run_returns_at_once_and_may_get_more_epochs(tmp_path: Path) -> None:
    saving = {**SEED, "checkpoint": tmp_path / "run", "checkpoint_every": 50}
    finished = run_training(TrainOptions(**saving))
    assert names(tmp_path / "run") == ["000002-epoch-100", "000003-epoch-130"]
    seen: list[LogEntry] = []
    again = run_training(TrainOptions(**saving, resume=True), seen.append)
    assert lines(again) == lines(finished)
    assert [entry.epoch for entry in seen] == [130]
    longer = {**SEED, "epochs": 200}
    more = run_training(TrainOptions(**{**saving, **longer}, resume=True))
    assert lines(more) == lines(run_training(TrainOptions(**longer)))
    with pytest.raises(UsageError, match="epochs: expected at least 200, the epoch of the checkpoint; got 130"):
        run_training(TrainOptions(**saving, resume=True))


def test_resuming_starts_where_nothing_was_written_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_training(TrainOptions(**SEED, checkpoint=tmp_path / "run", resume=True))
    assert lines(run) == lines(run_training(TrainOptions(**SEED)))
    assert "has no checkpoint yet; starting from the beginning" in capsys.readouterr().err


def test_a_process_that_torchrun_started_again_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saving = {**SEED, "checkpoint": tmp_path / "run", "checkpoint_every": 50}
    interrupted(saving, 120)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    with pytest.raises(UsageError, match="--resume continues it"):
        run_training(TrainOptions(**saving))
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    seen: list[LogEntry] = []
    run_training(TrainOptions(**saving), seen.append)
    assert [entry.epoch for entry in seen] == [100, 120, 130]


def test_a_run_that_began_again_at_half_the_rate_resumes_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default rate is made far too large; the second attempt is killed before it has come as far as the first."""
    given = {**SEED, "optimizer": "momentum"}

    def too_large(*arguments: Any) -> float:
        return 40 * default_rate(*arguments)

    for name in ("train", "train_as_asked"):
        function = getattr(loop, name)
        defaults = tuple(too_large if value is default_rate else value for value in function.__defaults__)
        monkeypatch.setattr(function, "__defaults__", defaults)
    expected = run_training(TrainOptions(**given))
    saving = {**given, "checkpoint": tmp_path / "run", "checkpoint_every": 5}
    attempts = 0

    def kill_later(entry: LogEntry) -> None:
        nonlocal attempts
        attempts += entry.epoch == 0
        if attempts > 1 and entry.epoch == 40:
            raise Stopped

    with pytest.raises(Stopped):
        run_training(TrainOptions(**saving), kill_later)
    assert attempts > 1
    run = run_training(TrainOptions(**saving, resume=True))
    assert lines(run) == lines(expected)
    assert run.learning_rate == expected.learning_rate


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"rank": 4}, "rank: 3 there, 4 here"),
        ({"seed": 2}, "seed: 1 there, 2 here"),
        ({"optimizer": "adam"}, "optimizer: sgd there, adam here"),
        ({"density": 0.5}, "ratings: "),
    ],
)
def test_another_problem_is_refused(other: dict[str, Any], said: str, tmp_path: Path) -> None:
    saving = {**SEED, "checkpoint": tmp_path / "run"}
    run_training(TrainOptions(**saving))
    before = names(tmp_path / "run")
    with pytest.raises(UsageError, match=f"resume: .* belongs to another run .*{said}") as raised:
        run_training(TrainOptions(**{**saving, **other}, resume=True))
    assert raised.value.code == "different-run"
    assert names(tmp_path / "run") == before


@pytest.mark.parametrize("file", ["__0_0.distcp", ".metadata", "run.json"])
@pytest.mark.parametrize("damage", ["cut", "absent", "bits"])
def test_a_damaged_checkpoint_leaves_the_one_before(
    file: str, damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = run_training(TrainOptions(**SEED))
    saving = {**SEED, "checkpoint": tmp_path / "run", "checkpoint_every": 50}
    run_training(TrainOptions(**saving))

    def spoil(name: str) -> None:
        path = tmp_path / "run" / name / file
        whole = path.read_bytes()
        if damage == "cut":
            path.write_bytes(whole[: len(whole) // 2])
        elif damage == "bits":  # of numbers, which no archive would notice
            path.write_bytes(bytes(byte ^ (at == len(whole) * 7 // 10) for at, byte in enumerate(whole)))
        else:
            path.unlink()

    spoil("000003-epoch-130")
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    assert lines(run_training(TrainOptions(**saving, resume=True))) == lines(expected)
    notes = capsys.readouterr().err
    assert f"{tmp_path / 'run' / '000003-epoch-130'} cannot be read" in notes
    assert "continuing at epoch 100" in notes
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "copy").rename(tmp_path / "run")
    spoil("000002-epoch-100")
    with pytest.raises(UsageError, match=r"no checkpoint in .* can be read") as raised:
        run_training(TrainOptions(**saving, resume=True))
    assert (raised.value.code, raised.value.argument) == ("unreadable-file", "resume")


def test_a_full_disk_ends_the_run_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saving = {**SEED, "checkpoint": tmp_path / "run", "checkpoint_every": 20}
    fsync, calls = os.fsync, 0

    def full(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls > 12:  # five for each checkpoint
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UsageError, match=f"cannot write {tmp_path / 'run'}: No space left on device") as raised:
        run_training(TrainOptions(**saving))
    assert (raised.value.code, raised.value.argument) == ("unwritable-file", "checkpoint")
    assert names(tmp_path / "run") == ["000001-epoch-20", "000002-epoch-40"]
    monkeypatch.undo()
    run = run_training(TrainOptions(**saving, resume=True))
    assert lines(run) == lines(run_training(TrainOptions(**SEED)))


def test_a_folder_that_cannot_be_written_is_named_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"cannot write .*file: it is not a folder"):
        run_training(TrainOptions(epochs=10**9, checkpoint=tmp_path / "file"))


def test_training_without_checkpoints_does_not_import_what_writes_them(tmp_path: Path) -> None:
    code = "from mfbench.cli import cli; cli(['train', '--epochs', '1'], standalone_mode=False)"
    code += "; import sys; assert 'torch.distributed.checkpoint' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
