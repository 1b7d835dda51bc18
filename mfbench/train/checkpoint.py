"""Checkpoints of a training run: what one holds, and how a run continues from it."""

from __future__ import annotations

import contextlib
import shutil
import warnings
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_saver import async_save

from kernels.distributed.failure import naming_missing_processes
from kernels.distributed.group import resolve_axes
from mfbench import log
from mfbench.errors import UsageError
from mfbench.train.checkpoint_folder import Folder
from mfbench.train.epoch import Update
from mfbench.train.history import START, LogEntry, Progress, TrainingRun
from mfbench.train.identity import Identity, differences
from mfbench.train.resharding import ALONE, Rows, RowsSavePlanner, read
from mfbench.train.saving import BestParameters
from mfbench.train.task import PARAMETERS


class Checkpoints:
    """Writes the state of a run now and then, in the background, and restores it.

    Attributes:
        every: epochs between two checkpoints.
        start: where training begins: at the last complete checkpoint, if there is one.
    """

    def __init__(
        self, folder: Folder, identity: Identity, best: BestParameters, rows: Rows, every: int, group: Any = None
    ) -> None:
        """Read the last complete checkpoint of the folder, if it has one.

        Args:
            folder: the same on every process.
            identity: of the problem.
            best: the parameters kept so far, saved and restored with the others.
            rows: the users of this process.
            every: epochs between two checkpoints.
            group: of the run's processes, communicating on the CPU, for nothing else; None: there is one process.

        Raises:
            UsageError: the checkpoints are of another problem, or none can be read.
        """
        self.every = every
        self._folder, self._identity, self._best, self._rows, self._group = folder, identity, best, rows, group
        self._number = folder.number
        self._written: tuple[Future[Any], Path] | None = None  # and where it is unfinished
        self._tensors: dict[str, Tensor] = {}
        self.start = self._read() if folder.complete else START

    def restore(self, update: Update) -> None:
        """Set parameters, the optimizer's state and the best parameters to those of the checkpoint read."""
        for name, parameter in zip(PARAMETERS, update.parameters, strict=True):
            parameter.copy_(self._tensors[f"parameters.{name}"])
        update.restore(_part(self._tensors, "optimizer"))
        self._best.restore(_part(self._tensors, "best"), self.start.entries)
        self._tensors = {}

    def save(self, run: TrainingRun, update: Update, epoch: int, seconds: float) -> None:
        """Copy the state and write it in the background, after the checkpoint before it is complete.

        Args:
            run: so far.
            update: of the parameters to save.
            epoch: updates done.
            seconds: of training so far.

        Raises:
            UsageError: a process could not write, this checkpoint or the one before it.
        """
        self.wait()
        progress = Progress(epoch, seconds, run.learning_rate, tuple(run.entries))
        writer = self._folder.writer(self._number, epoch, {"problem": self._identity, **progress._asdict()})
        tensors = {
            **{f"parameters.{name}": tensor for name, tensor in zip(PARAMETERS, update.parameters, strict=True)},
            **{f"optimizer.{name}": tensor for name, tensor in update.state().items()},
            **{f"best.{name}": tensor for name, tensor in self._best.kept.items()},
        }
        future: Any = async_save(
            tensors, storage_writer=writer, planner=RowsSavePlanner(self._rows), process_group=self._group,
            no_dist=self._group is None,
        )  # fmt: skip
        self._number, self._written = self._number + 1, (future, writer.unfinished)

    def wait(self) -> None:
        """Wait until the last checkpoint is complete.

        Raises:
            UsageError: a process could not write it.
            RuntimeError: another process has ended; the message names it.
        """
        if self._written is None:
            return
        (future, unfinished), self._written = self._written, None
        try:
            with self._naming_missing_processes():
                future.result()
        except CheckpointException as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            message = f"cannot write {self._folder.path}: {_reason(error)}"
            raise UsageError(message, code="unwritable-file", argument="checkpoint") from error

    def _naming_missing_processes(self) -> contextlib.AbstractContextManager[None]:
        if self._group is None:
            return contextlib.nullcontext()
        return naming_missing_processes(resolve_axes(self._group, torch.device("cpu")).users)

    def _read(self) -> Progress:
        """Read the last checkpoint, or the one before it where that is damaged."""
        for name, content in self._folder.complete:
            path = self._folder.path / name
            if not content:
                log.note(f"{path} cannot be read")
                continue
            if found := differences(content["problem"], self._identity):
                message = f"{path} belongs to another run ({found})"
                raise UsageError(message, code="different-run", argument="resume")
            try:
                self._tensors = read(path, self._rows, self._group)
            except CheckpointException as error:
                log.note(f"{path} cannot be read: {_reason(error)}")
                continue
            log.note(f"continuing at epoch {content['epoch']}, from {path}")
            entries = tuple(LogEntry(*entry) for entry in content["entries"])
            return Progress(content["epoch"], content["seconds"], content["learning_rate"], entries)
        message = f"no checkpoint in {self._folder.path} can be read"
        raise UsageError(message, code="unreadable-file", argument="resume")


@contextlib.contextmanager
def completed(checkpoints: Checkpoints) -> Iterator[Checkpoints]:
    """Have the last checkpoint completed before leaving, also on the way out of an error."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ALONE, UserWarning)  # in the thread that writes, too
        try:
            yield checkpoints
        except BaseException:
            with contextlib.suppress(UsageError, RuntimeError):  # the first error is the cause
                checkpoints.wait()
            raise
        checkpoints.wait()


def _part(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.partition(".")[2]: tensor for key, tensor in tensors.items() if key.startswith(f"{name}.")}


def _reason(error: CheckpointException) -> str:
    """Return why, of the first process that could not read or write."""
    process, (cause, _) = min(error.failures.items(), key=lambda failure: failure[0])
    reason = isinstance(cause, OSError) and cause.strerror
    where = f" (process {process})" if process else ""
    return (reason or f"{type(cause).__name__}: {str(cause).partition(chr(10))[0]}") + where
