"""The folder of a run's checkpoints: a complete one appears under its name at once, or not at all.

A checkpoint is written into a hidden folder beside the complete ones, synced to disk, and renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from mfbench.errors import UsageError

KEPT = 2  # complete checkpoints: the second one is for a disk that damages the first
COMPLETE = re.compile(r"(\d+)-epoch-\d+")  # the number orders them, also where training started again at a lower rate
UNFINISHED = re.compile(r"\.\d+-epoch-\d+\.[0-9a-f]+")  # being written, or being deleted
CONTENT = "run.json"  # what is not a tensor
BLOCK_BYTES = 1 << 20  # read at a time

Content = dict[str, Any]


class Folder(NamedTuple):
    """A folder of checkpoints as the run's first process found it, for all its processes."""

    path: Path
    complete: list[tuple[str, Content]]  # names and contents, the latest first
    mark: str  # of what this run writes, so that processes of a killed run, if any are left, cannot write into it

    @property
    def number(self) -> int:
        """The number of this run's first checkpoint."""
        return 1 + max((_number(name) for name, _ in self.complete), default=0)

    def writer(self, number: int, epoch: int, content: Content) -> CheckpointWriter:
        """Return what writes the next checkpoint; every process of the run needs one."""
        return CheckpointWriter(self.path, f"{number:06d}-epoch-{epoch}", self.mark, content)


class CheckpointWriter(FileSystemWriter):
    """Writes tensors as the library does, and makes the checkpoint visible once all of it is on disk."""

    def __init__(self, folder: Path, name: str, mark: str, content: Content) -> None:
        self.unfinished = folder / f".{name}.{mark}"
        super().__init__(self.unfinished)
        self._complete, self._content = folder / name, content

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Write this process's part. An error of the disk is raised as such, not as the archive's that follows it."""
        try:
            return super().write_data(plan, planner)
        except RuntimeError as error:
            cause = error.__context__
            raise (cause if isinstance(cause, OSError) else error) from None

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Finish the checkpoint, and delete those that it replaces: called on one process, after all have written."""
        super().finish(metadata, results)
        run = json.dumps(self._content)
        with (self.unfinished / CONTENT).open("w", encoding="utf-8") as file:
            json.dump({"run": run, "files": _digests(self.unfinished), "digest": _digest([run.encode()])}, file)
            file.flush()
            os.fsync(file.fileno())
        _sync(self.unfinished)
        self.unfinished.rename(self._complete)
        _sync(self._complete.parent)
        for name in _complete(self._complete.parent)[KEPT:]:
            _delete(self._complete.parent / name)


def open_folder(path: Path, resume: bool) -> Folder:
    """Make a folder of checkpoints if there is none, and delete what killed runs left unfinished in it.

    Raises:
        UsageError: it cannot be written, or has checkpoints and `resume` is false.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
        for entry in path.iterdir():
            if UNFINISHED.fullmatch(entry.name):
                shutil.rmtree(entry, ignore_errors=True)
        names = _complete(path)
    except OSError as error:
        reason = "it is not a folder" if isinstance(error, FileExistsError) else error.strerror
        raise UsageError(f"cannot write {path}: {reason}", code="unwritable-file", argument="checkpoint") from None
    if names and not resume:
        message = f"{path} has checkpoints of a run; --resume continues it, and another run needs another folder"
        raise UsageError(message, code="same-file", argument="checkpoint")
    return Folder(path, [(name, content_of(path / name)) for name in names], secrets.token_hex(4))


def _complete(path: Path) -> list[str]:
    """Return the names of the complete checkpoints, the latest first."""
    return sorted((entry.name for entry in path.iterdir() if COMPLETE.fullmatch(entry.name)), key=_number, reverse=True)


def _number(name: str) -> int:
    return int(name.partition("-")[0])


def content_of(path: Path) -> Content:
    """Return what is not a tensor; empty if a file is not what was written."""
    try:
        written = json.loads((path / CONTENT).read_text(encoding="utf-8"))
        run = written["run"]
        if written["files"] != _digests(path) or written["digest"] != _digest([run.encode()]):
            return {}
        content: Content = json.loads(run)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}
    return content


def _digests(path: Path) -> dict[str, str]:
    """Return hashes of all files but `CONTENT`, by name: archives of tensors do not notice damage to a number."""
    return {file.name: _digest_of(file) for file in sorted(path.iterdir()) if file.name != CONTENT}


def _digest_of(file: Path) -> str:
    with file.open("rb") as stream:
        return _digest(iter(lambda: stream.read(BLOCK_BYTES), b""))


def _digest(blocks: Iterable[bytes]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()


def _delete(path: Path) -> None:
    """Delete a checkpoint, which is not found any more from the beginning on."""
    hidden = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    path.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Have the names in a folder written to disk."""
    if os.name == "posix":  # elsewhere folders cannot be opened
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
