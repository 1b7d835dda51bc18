"""`mfbench train`: from options to a task, from a training run to its log."""

from __future__ import annotations

import functools
import json
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, get_args

import torch

from mfbench import log
from mfbench.commands.run import pick_devices
from mfbench.errors import UsageError
from mfbench.problems.cases import Case, parse_size
from mfbench.problems.datasets import Ratings, load
from mfbench.problems.ratings import DataWarning
from mfbench.problems.inputs import draw, on_device
from mfbench.providers import registry
from mfbench.train import NOTEBOOK_SIZE, Entry, Optimizer, Task, TrainingRun, notebook_task, rating_task, train


def command(
    provider: list[str] | None,
    size: Sequence[str],
    device: str | None,
    threads: int | None,
    as_json: bool,
    **given: Any,
) -> int:
    """The command with its options as the command line has them; None where the user gave none."""
    for option, values in (("--provider", provider or ()), ("--size", size)):
        if len(values) > 1:
            raise UsageError(f"{option}: train takes one, got {', '.join(values)}; run it again for another")
    if device == "all":
        raise UsageError("--device: train takes one, got all; run it again for another")
    if threads is not None:
        torch.set_num_threads(threads)
    with warnings.catch_warnings():
        warnings.simplefilter("always", DataWarning)
        warnings.showwarning = lambda message, *_, **__: log.note(str(message))
        run = run_training(
            provider=provider[0] if provider else "fused",
            size=parse_size(size[0]) if size else None,
            device=pick_devices(device)[0],
            log=functools.partial(print, file=sys.stderr if as_json else sys.stdout, flush=True),
            **{name: value for name, value in given.items() if value is not None},
        )
    if as_json:
        print(json.dumps(_plain(run), indent=2))
    return 0


def _plain(run: TrainingRun) -> dict[str, Any]:
    """The run as JSON has it, which knows no NaN."""

    def entry(of: Entry | None) -> dict[str, Any] | None:
        if of is None:
            return None
        return {name: None if math.isnan(value) else value for name, value in of._asdict().items()}

    entries = [entry(each) for each in run.entries]
    return run._asdict() | {"entries": entries, "best": entry(run.best), "reached": entry(run.reached)}


def run_training(
    data: str = "seed",
    provider: str = "fused",
    epochs: int | None = None,
    every: int | None = None,
    size: tuple[int, int] | None = None,
    rank: int = 30,
    density: float = 0.8,
    seed: int = 1,
    reg: float = 0.1,
    optimizer: Optimizer = "sgd",
    lr: float | None = None,
    holdout: float = 0.1,
    target_rmse: float | None = None,
    device: str = "cpu",
    log: Callable[[str], None] = print,
) -> TrainingRun:
    """What `mfbench train` does: `data` by name or file, the log line by line to `log`.

    On `seed`, the notebook's loop and log: 28001 epochs, a line every 1000. On ratings, 500 epochs, a line every 50.
    Size and density are those of `seed` and `synthetic`; `holdout` is of ratings, `seed` has its unobserved entries.

    Raises:
        UsageError: a value that does not fit; a learning rate at which training diverges.
        DataUnavailable: the data set needs a package that is not installed.
    """
    _check(optimizer, epochs, every, lr, holdout, target_rmse)
    loaded = registry.load(provider)
    notebook = data == "seed"
    if notebook:
        task = notebook_task(size or NOTEBOOK_SIZE, rank, density, seed, reg)
    else:
        task = rating_task(_ratings(data, size, density, seed), rank, seed, reg, holdout)
    epochs, every = epochs or (28001 if notebook else 500), every or (1000 if notebook else 50)

    def line(entry: Entry) -> None:
        if not notebook:
            log(f"epoch {entry.epoch} loss {entry.loss:.6g} {_judged(entry)} after {entry.seconds:.2f} s")
        elif entry.epoch < epochs:
            log(f"epoch {entry.epoch} loss {entry.loss}")

    task = Task(task.name, on_device(task.inputs, device), task.held_out.to(device))
    run = train(task, loaded, epochs, every, optimizer, lr, target_rmse, line)
    for text in summary(run):
        log(text)
    return run


def _ratings(data: str, size: tuple[int, int] | None, density: float, seed: int) -> Ratings:
    if data in ("synthetic", "blocks"):
        m, n = size or NOTEBOOK_SIZE
        case = Case(
            suite="train", m=m, n=n, rank=0, density=density,
            ratings_dtype="float32", mask="uint8", data=data, seed=seed,
        )  # fmt: skip
        drawn = draw(case)
        assert drawn.mask is not None  # as the case says
        return Ratings(drawn.ratings, drawn.mask, data)
    if size:
        raise UsageError(f"--size: {data!r} has a size of its own; only seed and synthetic are drawn at any size")
    return load(data)


def _judged(entry: Entry) -> str:
    return "nothing held out" if math.isnan(entry.held_out_rmse) else f"held-out RMSE {entry.held_out_rmse:.4f}"


def summary(run: TrainingRun) -> Iterator[str]:
    """The lines under the log: held-out error, time, time to quality."""
    last, best = run.entries[-1], run.best
    if run.held_out:
        entries = f"{run.held_out:,} {'entry' if run.held_out == 1 else 'entries'}"
        yield f"held-out squared error {last.held_out_sse:.2f} over {entries} (RMSE {last.held_out_rmse:.4f})"
    else:
        yield "nothing held out"
    if run.held_out and best is not last:
        yield f"best held-out RMSE {best.held_out_rmse:.4f} at epoch {best.epoch}, after {best.seconds:.2f} s"
    if run.target_rmse is not None:
        reached = run.reached
        yield f"target RMSE {run.target_rmse:g} " + (
            f"reached at epoch {reached.epoch}, after {reached.seconds:.2f} s" if reached else "not reached"
        )
    yield (
        f"{last.epoch} epochs in {last.seconds:.2f} s, {1000 * last.seconds / (last.epoch + 1):.3f} ms each: "
        f"{run.provider}, {run.optimizer}, learning rate {run.learning_rate:.3g}, {run.trained_on:,} ratings"
    )


def _check(
    optimizer: str, epochs: int | None, every: int | None, lr: float | None, holdout: float, target_rmse: float | None
) -> None:
    if optimizer not in get_args(Optimizer):
        raise UsageError(f"--optimizer: expected one of {', '.join(get_args(Optimizer))}, got {optimizer!r}")
    for name, count in (("epochs", epochs), ("every", every)):
        if count is not None and count < 1:
            raise UsageError(f"--{name}: expected a whole number from 1 up, got {count}")
    for name, value in (("lr", lr), ("target-rmse", target_rmse)):
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"--{name}: expected a positive number, got {value}")
    if not 0 <= holdout < 1:
        raise UsageError(f"--holdout: expected a fraction from 0 to below 1, got {holdout}")
