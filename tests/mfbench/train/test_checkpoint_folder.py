"""The folder of checkpoints: complete ones alone are seen, and none is lost."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystem

from mfbench.errors import UsageError
from mfbench.train.checkpoint_folder import Folder, open_folder
from mfbench.train.resharding import Rows, RowsSavePlanner, read

ROWS = Rows(0, 3, 3)

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


def write(folder: Folder, number: int, epoch: int) -> None:
    tensors: dict[str, Any] = {"parameters.user_bias": torch.full((3, 1), float(epoch))}
    writer = folder.writer(number, epoch, {"epoch": epoch})
    dcp.save(tensors, storage_writer=writer, planner=RowsSavePlanner(ROWS), no_dist=True)


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def test_the_last_two_are_kept_in_the_order_in_which_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "down"
    folder = open_folder(path, resume=False)
    assert (folder.complete, folder.number) == ([], 1)
    for number, epoch in enumerate((100, 200, 100), start=1):  # the last after a start at a lower rate
        write(folder, number, epoch)
    assert names(path) == ["000002-epoch-200", "000003-epoch-100"]
    again = open_folder(path, resume=True)
    assert again.complete == [("000003-epoch-100", {"epoch": 100}), ("000002-epoch-200", {"epoch": 200})]
    assert (again.number, again.mark == folder.mark) == (4, False)
    for name, content in again.complete:
        assert read(path / name, ROWS)["parameters.user_bias"].tolist() == [[content["epoch"]]] * 3


def test_numbers_of_any_length_are_ordered(tmp_path: Path) -> None:
    folder = open_folder(tmp_path, resume=False)
    for number in (999_999, 1_000_000, 1_000_001):
        write(folder, number, 5)
    assert [name for name, _ in open_folder(tmp_path, resume=True).complete] == ["1000001-epoch-5", "1000000-epoch-5"]


def test_a_run_does_not_begin_among_the_checkpoints_of_another(tmp_path: Path) -> None:
    write(open_folder(tmp_path, resume=False), 1, 10)
    with pytest.raises(UsageError, match="has checkpoints of a run; --resume continues it") as raised:
        open_folder(tmp_path, resume=False)
    assert (raised.value.code, raised.value.argument) == ("same-file", "checkpoint")


def test_what_a_kill_left_is_deleted_and_other_files_are_not(tmp_path: Path) -> None:
    left = tmp_path / ".000002-epoch-20.0a1b2c3d"
    left.mkdir()
    (left / "__0_0.distcp").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / ".hidden").mkdir()
    assert open_folder(tmp_path, resume=False).complete == []
    assert names(tmp_path) == [".hidden", "notes.txt"]


@pytest.mark.parametrize("call", range(1, 6))
def test_a_write_that_fails_anywhere_leaves_the_complete_ones(
    call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files and folders are synced five times: tensors, their index, the rest, and two folders."""
    folder = open_folder(tmp_path, resume=False)
    write(folder, 1, 10)
    write(folder, 2, 20)
    count, fsync = 0, os.fsync

    def full(handle: int) -> None:
        nonlocal count
        count += 1
        if count == call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointException):
        write(folder, 3, 30)
    monkeypatch.undo()
    found = open_folder(tmp_path, resume=True).complete
    visible = ["000003-epoch-30"] if call == 5 else []  # only its name may be lost if the power fails
    assert [name for name, _ in found] == [*visible, "000002-epoch-20", "000001-epoch-10"]
    for name, content in found:
        assert read(tmp_path / name, ROWS)["parameters.user_bias"].tolist() == [[content["epoch"]]] * 3


class FullStream(io.BytesIO):
    """A file on a disk that is full after 100 bytes."""

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > 100:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


def test_a_full_disk_is_named_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's archive format raises another error, which hides the disk's."""
    folder = open_folder(tmp_path, resume=False)
    monkeypatch.setattr(FileSystem, "create_stream", lambda *_: FullStream())
    with pytest.raises(CheckpointException) as raised:
        write(folder, 1, 10)
    cause, _ = raised.value.failures[0]
    assert isinstance(cause, OSError)
    assert cause.errno == errno.ENOSPC
    assert open_folder(tmp_path, resume=False).complete == []


def test_a_damaged_content_is_empty(tmp_path: Path) -> None:
    write(open_folder(tmp_path, resume=False), 1, 10)
    (tmp_path / "000001-epoch-10" / "run.json").write_text('{"epo')
    assert open_folder(tmp_path, resume=True).complete == [("000001-epoch-10", {})]


def test_a_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/here")):
        with pytest.raises(UsageError, match=f"cannot write {path}: ") as raised:
            open_folder(path, resume=True)
        assert (raised.value.code, raised.value.argument) == ("unwritable-file", "checkpoint")
