"""Append records to a file, synced to the disk as each case ends."""

from __future__ import annotations

import codecs
import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from mfbench.errors import UsageError
from mfbench.results.records import OPENING, Record, has_objects, is_json

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


class Writer:
    """Append records to a file, after cutting off a torn last line that an interrupted run left.

    Raises:
        UsageError: the file cannot be opened, or holds something other than records.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._created = not path.exists()
        self._open()
        self._regular = stat.S_ISREG(os.fstat(self._file).st_mode)  # pipes and devices have no tail to cut
        if self._regular:
            with self._locked():
                self._cut_torn_line()

    def _open(self) -> None:
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            message = f"cannot write {self.path}: {error.strerror}"
            raise UsageError(message, code="unwritable-file", argument="out") from None

    def _cut_torn_line(self) -> None:
        size = os.fstat(self._file).st_size
        content = os.pread(self._file, size, 0).removeprefix(codecs.BOM_UTF8)
        whole, _, torn = content.rpartition(b"\n")
        if not _may_be_records(whole) or torn[: len(OPENING)] != OPENING[: len(torn)]:
            message = f"expected a file of records, got {self.path}, which holds something else"
            raise UsageError(message, code="bad-records", argument="out")
        if is_json(torn):
            os.write(self._file, b"\n")
        elif torn:
            os.ftruncate(self._file, size - len(torn))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold an exclusive lock on the file, where the platform has one."""
        if fcntl is not None and self._regular:
            fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            if fcntl is not None and self._regular:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def append(self, records: Sequence[Record]) -> None:
        """Write the records and flush them to disk.

        Raises:
            UsageError: the write failed, for example on a full disk; the file keeps its previous content.
        """
        content = "".join(record.model_dump_json(exclude_none=True) + "\n" for record in records).encode()
        if self._regular and not os.fstat(self._file).st_nlink:  # somebody has removed the file meanwhile
            os.close(self._file)
            self._open()
        with self._locked():
            size = os.fstat(self._file).st_size
            try:
                written = os.write(self._file, content)
                if written < len(content):
                    os.write(self._file, content[written:])
                if self._regular:
                    os.fsync(self._file)
            except OSError as error:
                if self._regular:
                    os.ftruncate(self._file, size)
                message = f"cannot write {self.path}: {error.strerror}"
                raise UsageError(message, code="unwritable-file", argument="out") from None

    def close(self) -> None:
        """Close the file, and remove it if this writer created it and nothing was written."""
        if self._created and self._regular:
            with self._locked(), contextlib.suppress(OSError):
                if not os.fstat(self._file).st_size:
                    self.path.unlink()
        os.close(self._file)


def _may_be_records(lines: bytes) -> bool:
    """Return whether the lines are empty or at least one looks like an object with a schema."""
    return not lines.strip() or has_objects(lines)
