"""`mfbench train`: the log of a training run and its summary."""

from __future__ import annotations

import functools
import json
import math
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from mfbench import log
from mfbench.measure.devices.selection import select
from mfbench.problems.cases import parse_size
from mfbench.problems.ratings import DataWarning
from mfbench.results import environment
from mfbench.train.history import LogEntry, TrainingRun
from mfbench.train.loop import run_training
from mfbench.train.options import TrainOptions
from mfbench.train.processes import is_silent, run_training_over_processes, set_threads, several_processes


def command(size: str | None, device: str | None, threads: int | None, as_json: bool, **given: Any) -> int:
    """Train and print, with the options of the command line; None for those not given.

    Raises:
        UsageError: a value that does not fit; a learning rate at which training diverges.
        DataUnavailable: the data set is not installed.
    """
    if size:
        given["size"] = parse_size(size)
    chosen = {name: value for name, value in given.items() if value is not None}
    options = TrainOptions(device=select(device)[0], **chosen)
    environment.check_threads(threads)
    if threads is not None:
        set_threads(threads)
    write: Callable[[str], Any] = functools.partial(print, file=sys.stderr if as_json else sys.stdout, flush=True)
    if is_silent():
        write, as_json = _ignore, False
        log.set_level(-1)
    with warnings.catch_warnings():
        warnings.simplefilter("always", DataWarning)
        warnings.showwarning = lambda message, *_, **__: log.note(str(message))
        run = train_and_log(options, write)
    if as_json:
        print(json.dumps(_without_nan(run), indent=2))
    return 0


def train_and_log(options: TrainOptions, write: Callable[[str], Any]) -> TrainingRun:
    """Train, and write a line for each entry, unless --quiet, and the summary.

    Raises:
        UsageError, DataUnavailable: as `run_training`.
    """
    start = run_training_over_processes if several_processes() else run_training

    def log_entry(entry: LogEntry) -> None:
        if log.level() >= 0:
            for line in _lines(entry, options):
                write(line)

    run = start(options, log_entry)
    for line in summary(run):
        write(line)
    return run


def _lines(entry: LogEntry, options: TrainOptions) -> Iterator[str]:
    """Yield the line of an entry; on the notebook's problem as the notebook prints it, without the last state."""
    if options.data != "seed":
        yield f"epoch {entry.epoch} loss {entry.loss:.6g} {_judged(entry)} after {entry.seconds:.2f} s"
    elif entry.epoch < options.updates:
        yield f"epoch {entry.epoch} loss {entry.loss}"


def _judged(entry: LogEntry) -> str:
    return "nothing held out" if math.isnan(entry.held_out_rmse) else f"held-out RMSE {entry.held_out_rmse:.4f}"


def summary(run: TrainingRun) -> Iterator[str]:
    """Yield the lines below the log: held-out error, time, time to quality."""
    last, best = run.entries[-1], run.best
    if run.held_out:
        entries = f"{run.held_out:,} {'entry' if run.held_out == 1 else 'entries'}"
        yield f"held-out squared error {last.held_out_sse:.2f} over {entries} (RMSE {last.held_out_rmse:.4f})"
    else:
        yield "nothing held out"
    if run.held_out and best is not last:
        yield f"best held-out RMSE {best.held_out_rmse:.4f} at epoch {best.epoch}, after {best.seconds:.2f} s"
        if best is run.entries[0]:
            remedy = "a larger --patience or --reg" if run.stalled else "more --epochs"
            yield f"no epoch lowered the held-out error; try {remedy}, another --optimizer or a smaller --rank"
    if run.target_rmse is not None:
        reached = run.reached
        yield f"target RMSE {run.target_rmse:g} " + (
            f"reached at epoch {reached.epoch}, after {reached.seconds:.2f} s" if reached else "not reached"
        )
    if run.stalled:
        yield f"stopped, since {run.patience} lines in a row brought no lower held-out error"
    yield (
        f"{last.epoch} epochs in {last.seconds:.2f} s, {1000 * last.seconds / (last.epoch + 1):.3f} ms each: "
        f"{run.provider}, {run.optimizer}, learning rate {run.learning_rate:.3g}, "
        f"regulariser {run.reg:.3g}, {run.trained_on:,} ratings"
    )


def _ignore(line: str) -> None:
    """Discard a line: another process writes the log."""


def _without_nan(run: TrainingRun) -> dict[str, Any]:
    """Return the run for JSON, which has no NaN."""

    def entry(of: LogEntry | None) -> dict[str, Any] | None:
        if of is None:
            return None
        return {name: None if math.isnan(value) else value for name, value in of._asdict().items()}

    entries = [entry(each) for each in run.entries]
    return run._asdict() | {"entries": entries, "best": entry(run.best), "reached": entry(run.reached)}
