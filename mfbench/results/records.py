"""Records: one JSON object a line, appended and synced to the disk as each case ends."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mfbench.errors import UsageError
from mfbench.problems.cases import Case
from mfbench.stats.intervals import Verdict

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

SCHEMA = 1
OPENING = b'{"schema":'  # of every record

Status = Literal["ok", "wrong", "oom", "timeout", "crashed", "error", "skipped"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Correctness(_Part):
    """One output's error against its bound, relative to the size of the terms that an entry sums; None: not finite."""

    error: float | None = None
    bound: float
    rms_error: float | None = None
    rms_bound: float
    ok: bool


class Timing(_Part):
    """Seconds per evaluation; `samples_s` unrounded, in the order in which the rounds took them.

    The rounds lie in as many `placements`, equally many in each: between them the data was moved in memory. Rounds are
    `disturbed` where other programs kept part of the machine busy (`foreign_cores` on average over all), `dropped`
    where that was so and others were taken instead, and were `throttled` where they were timed again since the device
    was held back by heat or power.
    """

    samples_s: list[float]
    median_s: float
    ci95_s: tuple[float | None, float | None]
    rounds: int
    loops: int
    method: str
    cold_cache: bool
    placements: int | None = None
    throttled: int | None = None
    disturbed: int | None = None
    dropped: int | None = None
    foreign_cores: float | None = None

    @property
    def busy(self) -> bool:
        """Other programs ran in half of the rounds or more."""
        return 2 * (self.disturbed or 0) >= self.rounds


class Speedup(_Part):
    """How many times as fast as the baseline.

    `ci95` is of this ratio alone. The verdicts of the run's `family` of comparisons hold together at 95 %.
    """

    baseline: str
    ratio: float
    ci95: tuple[float | None, float | None]
    margin: float
    verdict: Verdict
    family: int = 1


class Rates(_Part):
    ratings_per_s: float
    flops_per_s: float
    bytes_per_s: float


class Roofline(_Part):
    """The machine's floor for the case: what binds it, and which fraction of that ceiling was reached."""

    bound: Literal["compute", "memory"]
    fraction: float
    gemm_flops_per_s: float
    peak_flops_per_s: float | None = None  # None: not measured, the fraction is of the GEMM rate
    copy_bytes_per_s: float


class Record(_Part):
    """What is known of one provider on one case."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, serialize_by_alias=True)

    schema_: int = Field(SCHEMA, alias="schema", strict=True)
    run_id: str
    time: str  # ISO 8601, UTC
    case: Case
    provider: str
    device: str
    status: Status
    reason: str | None = None
    correctness: dict[str, Correctness] | None = None
    timing: Timing | None = None
    compile_s: float | None = None
    speedup: Speedup | None = None
    rates: Rates | None = None
    roofline: Roofline | None = None
    peak_bytes: int | None = None  # beyond the inputs and outputs
    env: dict[str, Any]

    @property
    def key(self) -> tuple[Case, str, str]:
        return self.case, self.provider, self.device


def read(path: Path) -> tuple[list[Record], list[str]]:
    """The records of a file, and a note for every line that is none.

    Raises:
        UsageError: the file cannot be read.
    """
    return parse(path, content(path))


def content(path: Path) -> bytes:
    """Of a file, or of a pipe, which can be read but once.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}", code="unreadable-file") from None


def parse(path: Path, content: bytes) -> tuple[list[Record], list[str]]:
    """The records in a file's content, and a note for every line that is none, a torn last line among them."""
    lines = content.split(b"\n")
    torn = lines.pop()
    notes = [f"{path}: the last line is torn and was left out"] if torn else []
    records = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            records.append(Record.model_validate_json(line))
        except ValidationError as error:
            detail = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in detail["loc"])
            notes.append(f"{path}: line {number} is no record and was left out: {place} {detail['msg']}".strip())
    return records, notes


def other_schemas(content: bytes) -> dict[int, Any]:
    """The schema of every line that has another one, by its number: it may fit today's and mean something else."""
    found = {}
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError):
            continue
        schema = fields.get("schema", SCHEMA) if isinstance(fields, dict) else SCHEMA
        if schema != SCHEMA:
            found[number] = schema
    return found


def _may_be_records(lines: bytes) -> bool:
    """Nothing, or lines of which one at least is an object with a schema."""
    return not lines.strip() or any(b'"schema"' in line for line in lines.split(b"\n") if line.startswith(b"{"))


class Writer:
    """Appends to a file of records; a torn last line that an earlier run left is cut off first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror}", code="unwritable-file", argument="out") from None
        self._regular = stat.S_ISREG(os.fstat(self._file).st_mode)  # a pipe or a device has no tail to mend
        if self._regular:
            with self._locked():
                self._mend()

    def _mend(self) -> None:
        size = os.fstat(self._file).st_size
        content = os.pread(self._file, size, 0)
        whole, _, torn = content.rpartition(b"\n")
        if not _may_be_records(whole) or torn[: len(OPENING)] != OPENING[: len(torn)]:
            message = f"expected a file of records, got {self.path}, which holds something else"
            raise UsageError(message, code="bad-records", argument="out")
        if not torn:
            return
        os.ftruncate(self._file, size - len(torn))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Others that append to the file wait."""
        if fcntl is not None and self._regular:
            fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            if fcntl is not None and self._regular:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def append(self, records: Sequence[Record]) -> None:
        """Write the records and wait until they are on the disk.

        Raises:
            UsageError: the disk is full or gone; the file keeps what it had.
        """
        content = "".join(record.model_dump_json(exclude_none=True) + "\n" for record in records).encode()
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
        os.close(self._file)
