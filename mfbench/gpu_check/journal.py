"""Write records as they come, as JSON lines that `mfbench report` reads; needs nothing but Python."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mfbench.errors import UsageError
from mfbench.measure.recording import Fields

SCHEMA = 1  # of `mfbench.results.records`, which needs Pydantic


class Journal:
    """A file that records are appended to, each flushed to the disk."""

    def __init__(self, path: Path) -> None:
        """Open the file, and end its last line if an interrupted run left it torn.

        Raises:
            UsageError: it cannot be opened.
        """
        self.path = path
        try:
            self._file = path.open("a+b")
        except OSError as error:
            raise self._unwritable(error) from None
        if self._file.tell():
            self._file.seek(-1, os.SEEK_END)
            if self._file.read() != b"\n":
                self._file.write(b"\n")

    def append(self, records: Iterable[Fields]) -> None:
        """Write records.

        Raises:
            UsageError: the disk is full, or the like.
        """
        try:
            for record in records:
                self._file.write(as_json(record) + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._unwritable(error) from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _unwritable(self, error: OSError) -> UsageError:
        return UsageError(f"cannot write {self.path}: {error.strerror}", code="unwritable-file", argument="out")


def as_json(record: Fields) -> bytes:
    """Return a record's line, without the fields that are None, and with the case as an object."""
    fields = {"schema": SCHEMA, **record, "case": record["case"]._asdict()}
    return json.dumps(_without_none(fields), allow_nan=False).encode()


def _without_none(value: Any) -> Any:
    """Leave out the None of objects; those in lists, the ends of unbounded intervals, stay."""
    if isinstance(value, dict):
        return {name: _without_none(part) for name, part in value.items() if part is not None}
    return value
