"""Keep the parameters with the least held-out error, and write them to a file."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from mfbench.errors import UsageError
from mfbench.train.history import LogEntry
from mfbench.train.task import PARAMETERS, Task


class BestParameters:
    """A copy of the parameters at the best entry of the log so far; at the last one where nothing is held out."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._rmse = math.inf
        self.kept: dict[str, torch.Tensor] = {}  # by name, on the CPU

    def see(self, epoch: int, held_out_rmse: float) -> None:
        """Keep the present parameters if their held-out error, NaN if nothing is held out, is the least so far.

        Epoch 0 starts a new run.
        """
        if epoch == 0 or not held_out_rmse >= self._rmse:
            self._rmse = held_out_rmse
            inputs = self._task.inputs
            self.kept = {name: getattr(inputs, name).detach().cpu().clone() for name in PARAMETERS}

    def restore(self, kept: dict[str, torch.Tensor], entries: Sequence[LogEntry]) -> None:
        """Continue with the parameters kept, the best of those entries of the log."""
        self.kept = kept
        self._rmse = min((entry.held_out_rmse for entry in entries), default=math.inf)

    def write(self, path: Path) -> None:
        """Write a dictionary that `torch.load` reads with `weights_only=True`. A file of that name is replaced at once.

        It holds the five parameters by name, and in `users` and `items` the identifiers of the rows of the factors
        where the ratings came from a file.

        Raises:
            UsageError: the file cannot be written.
        """
        content = {**self.kept, "users": list(self._task.users), "items": list(self._task.items)}
        path = path.resolve()
        replaces = path.is_file() or not path.exists()  # a device or a pipe is written to
        target = path.with_name(f".{path.name}.{os.getpid()}") if replaces else path
        try:
            torch.save(content, target)
            if replaces:
                os.replace(target, path)
        except (OSError, RuntimeError) as error:
            if replaces:
                target.unlink(missing_ok=True)
            raise UsageError(f"cannot write {path}: {error}", code="unwritable-file", argument="save") from None


def check_writable(path: Path, data: str) -> None:
    """Raise UsageError where the file cannot be written or is the data's, before any time is spent on training."""
    new = not path.exists()
    if not new and Path(data).exists() and path.samefile(data):
        raise UsageError(f"{path} is the file of ratings", code="same-file", argument="save")
    try:
        with path.open("ab"):
            pass
        if new:
            path.unlink()
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}", code="unwritable-file", argument="save") from None
