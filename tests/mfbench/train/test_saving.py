"""Saved parameters are those of the best entry, with the identifiers of a file."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
import torch

from mfbench.errors import UsageError
from mfbench.problems.datasets import Ratings
from mfbench.problems.matrices import to_sparse
from mfbench.train.history import LogEntry
from mfbench.train.loop import run_training
from mfbench.train.options import TrainOptions
from mfbench.train.saving import BestParameters
from mfbench.train.task import PARAMETERS, make_task, rating_task


def ratings_file(folder: Path) -> Path:
    path = folder / "ratings.csv"
    choose = random.Random(1)  # there is nothing to learn, so training overfits
    places = [(user, item) for user in range(30) for item in range(user % 3, 20, 3)]
    lines = [f"u{user},{10 * item},{choose.randint(1, 5)}" for user, item in places]
    path.write_text("\n".join(["userId,movieId,rating", *lines]) + "\n")
    return path


@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_the_best_parameters_are_saved(tmp_path: Path, layout: str) -> None:
    pytest.importorskip("pyarrow")
    options = TrainOptions(
        data=str(ratings_file(tmp_path)), rank=4, epochs=300, every=10, optimizer="adam", lr=0.05, layout=layout,
        save=tmp_path / "saved.pt",
    )  # fmt: skip
    run = run_training(options)
    assert run.best is not run.entries[-1]
    saved = torch.load(tmp_path / "saved.pt", weights_only=True)
    assert sorted(saved["users"]) == sorted(f"u{user}" for user in range(30))
    assert saved["items"] == list(range(0, 200, 10))
    task = make_task(options)
    for name in PARAMETERS:
        getattr(task.inputs, name).copy_(saved[name])
    assert task.held_out_sse() == pytest.approx(run.best.held_out_sse, rel=1e-5)


def test_a_new_attempt_forgets_the_last_one() -> None:
    task = rating_task(Ratings(to_sparse(torch.full((5, 4), 2.0), None), "constant"), rank=2)
    best = BestParameters(task)

    def see(epoch: int, rmse: float, bias: float) -> float:
        task.inputs.global_bias.fill_(bias)
        best.see(epoch, rmse)
        return float(best.kept["global_bias"])

    assert see(0, 1.0, 1.0) == 1.0
    assert see(1, 0.5, 2.0) == 2.0
    assert see(2, 0.7, 3.0) == 2.0
    assert see(0, 0.9, 4.0) == 4.0
    assert see(1, math.nan, 5.0) == 5.0  # nothing is held out: the last


def test_a_file_that_cannot_be_written_is_named_before_training(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot write") as raised:
        run_training(TrainOptions(epochs=10**9, save=tmp_path / "absent" / "x.pt"))
    assert (raised.value.code, raised.value.argument) == ("unwritable-file", "save")


def test_the_file_of_ratings_is_not_overwritten(tmp_path: Path) -> None:
    path = ratings_file(tmp_path)
    before = path.read_bytes()
    with pytest.raises(UsageError, match="is the file of ratings"):
        run_training(TrainOptions(data=str(path), save=tmp_path / "." / path.name))
    assert path.read_bytes() == before


def test_no_file_is_left_if_nothing_was_trained(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        run_training(TrainOptions(data=str(tmp_path / "missing.csv"), save=tmp_path / "saved.pt"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_an_interruption_saves_the_best_so_far(tmp_path: Path, interruption: type[BaseException]) -> None:
    target = tmp_path / "saved.pt"
    target.write_bytes(b"an earlier model")
    seen = []

    def interrupt(entry: LogEntry) -> None:
        seen.append(entry)
        if len(seen) == 4:
            raise interruption

    with pytest.raises(interruption):
        run_training(TrainOptions(epochs=50, every=10, size=(20, 30), rank=3, save=target), interrupt)
    saved = torch.load(target, weights_only=True)
    assert list(saved) == [*PARAMETERS, "users", "items"]
    assert saved["user_factors"].shape == (20, 3)
    assert saved["user_factors"].isfinite().all()
    assert list(tmp_path.iterdir()) == [target]
