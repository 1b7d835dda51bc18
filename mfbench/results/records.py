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
from mfbench.results.codes import Status
from mfbench.stats.intervals import Verdict

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

SCHEMA = 1
OPENING = b'{"schema":'  # first bytes of every record


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Correctness(_Part):
    """Error of one output and its bound, relative to the magnitude of the terms each entry sums.

    An error of None is not finite.
    """

    error: float | None = None
    bound: float
    rms_error: float | None = None
    rms_bound: float
    ok: bool


class Timing(_Part):
    """Seconds per evaluation of one provider, and the conditions under which they were measured."""

    samples_s: list[float]  # unrounded, one a round, in the order measured
    median_s: float
    ci95_s: tuple[float | None, float | None]
    rounds: int
    loops: int  # evaluations per sample
    method: str
    cold_cache: bool
    placements: int | None = None  # times the data moved in memory, with the same number of rounds after each move
    throttled: int | None = None  # rounds measured again because heat or power limited the device
    disturbed: int | None = None  # rounds kept although other programs used part of the machine
    dropped: int | None = None  # rounds replaced because other programs used part of the machine
    foreign_cores: float | None = None  # cores that other programs kept busy, averaged over the rounds

    @property
    def busy(self) -> bool:
        """Return whether other programs disturbed at least half of the rounds."""
        return 2 * (self.disturbed or 0) >= self.rounds


class Speedup(_Part):
    """Ratio of the baseline's time to this provider's, and the verdict on it."""

    baseline: str
    ratio: float
    ci95: tuple[float | None, float | None]  # of this ratio alone
    margin: float
    verdict: Verdict  # simultaneous: at 95 %, no verdict of the family is wrong
    family: int = 1  # comparisons in the run


class Rates(_Part):
    """Throughput at the median time."""

    ratings_per_s: float
    flops_per_s: float
    bytes_per_s: float


class Roofline(_Part):
    """Distance from the machine's limit: which ceiling bounds the case, and the fraction of it that was reached."""

    bound: Literal["compute", "memory"]
    fraction: float
    gemm_flops_per_s: float
    peak_flops_per_s: float | None = None  # None: not measured, and the fraction is of the GEMM rate
    copy_bytes_per_s: float


class Record(_Part):
    """Everything measured of one provider on one case."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, serialize_by_alias=True)

    schema_: int = Field(SCHEMA, alias="schema", strict=True)
    run_id: str
    time: str  # ISO 8601, UTC
    case: Case
    provider: str
    device: str
    status: Status
    code: str | None = None  # why it is not ok, one of `mfbench.results.codes.Code`; newer files may have others
    reason: str | None = None  # the same for people
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
        """Return what identifies the measurement within a run: case, provider and device."""
        return self.case, self.provider, self.device


def read(path: Path) -> tuple[list[Record], list[str]]:
    """Read a file; return its records and a note for every line that is not one.

    Raises:
        UsageError: the file cannot be read.
    """
    return parse(path, content(path))


def content(path: Path) -> bytes:
    """Return the bytes of a file or pipe. A pipe can be read only once.

    Raises:
        UsageError: the file cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}", code="unreadable-file") from None
    except MemoryError:
        raise UsageError(f"{path}: cannot be read: it does not fit into memory", code="out-of-memory") from None


def parse(path: Path, content: bytes) -> tuple[list[Record], list[str]]:
    """Return the records in a file's content, and a note for every line that is not one or is torn."""
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
            notes.append(f"{path}: line {number} is not a record and was left out: {place} {detail['msg']}".strip())
    return records, notes


def other_schemas(content: bytes) -> dict[int, Any]:
    """Return the schema of every line with another schema, by line number.

    Such a line may still validate today and mean something else.
    """
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


def check_name(name: str, argument: str) -> None:
    """Check that a record can hold a name; a file's name may be any bytes, and JSON holds Unicode text.

    Raises:
        UsageError: it is not valid UTF-8.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        shown = name.encode("ascii", "backslashreplace").decode()
        message = f"{shown} is not valid UTF-8, so no record can name it; rename the file"
        raise UsageError(message, code="bad-name", argument=argument) from None


def _may_be_records(lines: bytes) -> bool:
    """Return whether the lines are empty or at least one looks like an object with a schema."""
    return not lines.strip() or any(b'"schema"' in line for line in lines.split(b"\n") if line.startswith(b"{"))


class Writer:
    """Append records to a file, after cutting off a torn last line that an interrupted run left.

    Raises:
        UsageError: the file cannot be opened, or holds something other than records.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror}", code="unwritable-file", argument="out") from None
        self._regular = stat.S_ISREG(os.fstat(self._file).st_mode)  # pipes and devices have no tail to cut
        if self._regular:
            with self._locked():
                self._cut_torn_line()

    def _cut_torn_line(self) -> None:
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
        """Close the file."""
        os.close(self._file)
