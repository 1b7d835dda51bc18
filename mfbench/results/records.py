"""Records, one JSON object a line: what they hold, and how files of them are read."""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mfbench.errors import UsageError
from mfbench.problems.cases import Case
from mfbench.problems.faults import first_fault
from mfbench.results.codes import Status
from mfbench.results.crowding import Crowding, crowding
from mfbench.stats.intervals import Verdict

SCHEMA = 1
OPENING = b'{"schema":'  # first bytes of every record
LONGEST_QUOTE = 60  # bytes of a line that a message quotes


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Correctness(_Part):
    """Error of one output and its bound, relative to the magnitude of the terms each entry sums.

    An error of None is not finite.
    """

    error: float | None = None  # largest error of an entry
    bound: float  # of `error`
    rms_error: float | None = None  # root mean square error
    rms_bound: float  # of `rms_error`
    ok: bool  # both errors lie within their bounds


class Timing(_Part):
    """Seconds per evaluation of one provider, and the conditions under which they were measured."""

    samples_s: list[float]  # unrounded, one a round, in the order measured
    median_s: float  # of the samples
    ci95_s: tuple[float | None, float | None]  # 95 % interval of the median; null: too few rounds
    rounds: int  # number of samples
    loops: int  # evaluations per sample
    method: str  # clock and procedure, in words
    cold_cache: bool  # caches were cleared before each sample
    placements: int | None = None  # times the data moved in memory, with the same number of rounds after each move
    throttled: int | None = None  # rounds measured again because heat or power limited the device
    disturbed: int | None = None  # rounds kept although other programs used part of the machine
    dropped: int | None = None  # rounds replaced because other programs used part of the machine
    foreign_cores: float | None = None  # cores of the run that other programs kept busy, averaged over the rounds
    planned_s: float | None = None  # seconds that the rounds of all providers were expected to take
    took_s: float | None = None  # seconds that they took
    resolve: float | None = None  # relative difference that the rounds were to tell; absent: as many as were affordable


class Speedup(_Part):
    """Ratio of the baseline's time to this provider's, and the verdict on it."""

    baseline: str  # provider
    ratio: float  # median over the rounds of baseline / provider
    ci95: tuple[float | None, float | None]  # of this ratio alone
    margin: float  # relative difference up to which two times count as the same
    verdict: Verdict  # simultaneous: at 95 %, no verdict of the family is wrong
    family: int = 1  # comparisons in the run
    needs_s: float | None = None  # seconds of rounds that would probably decide an inconclusive verdict
    reason: str | None = None  # why more rounds would not: other programs ran, and how many cores they took


class Rates(_Part):
    """Throughput at the median time."""

    ratings_per_s: float  # m n over the median time; in the layout sparse, the observed ratings
    flops_per_s: float  # 6 rank operations for each of these ratings over the median time
    bytes_per_s: float  # ratings, mask and parameters once, over the median time


class Roofline(_Part):
    """Distance from the machine's limit: which ceiling bounds the case, and the fraction of it that was reached."""

    bound: Literal["compute", "memory"]  # the ceiling that the observed ratings reach first
    fraction: float  # least time at the measured ceilings over the median time
    gemm_flops_per_s: float  # PyTorch's rate for a square product
    peak_flops_per_s: float | None = None  # None: not measured, and the fraction is of the GEMM rate
    copy_bytes_per_s: float  # bandwidth of a working set of the case's size


ScalingKind = Literal["strong", "weak"]  # strong: the same problem as one process; weak: as many users on each process


class Group(_Part):
    """The processes that shared the case, the slowest of which is what `timing` tells, and where a step's time goes."""

    backend: str  # of torch.distributed, such as `gloo`
    threads: int  # of each process
    launches: int  # times that the processes were started, other numbers of them in between
    computing_s: float  # the slowest process's step on its own users, the others doing the same; median of the launches
    communicating_s: float  # what a step takes beyond it: messages, and waiting for them; noise may make it negative
    latency_s: float | None = None  # of one message, and waiting for the slowest process; fitted; absent: one process
    bytes_per_s: float | None = None  # that a process sends in an all-reduce, fitted; absent: one process
    predicted_s: float | None = None  # seconds of a step by the model in docs/scaling.md; absent: not modelled


class Scaling(_Part):
    """What several processes gained over one, by the launches' medians; one process was launched before and after each.

    An end of an interval that is null is unbounded: too few launches.
    """

    kind: ScalingKind  # strong: the same problem as one process; weak: as many users on each process
    ratio: float  # T1 / TW, median over the launches
    ci95: tuple[float | None, float | None]  # of the ratio
    efficiency: float  # T1 / (W TW) of strong scaling, T1 / TW of weak
    efficiency_ci95: tuple[float | None, float | None]  # of the efficiency
    one_process_threads: int | None = None  # of one process with as many threads as the machine has cores for
    one_process_ratio: float | None = None  # its time over this one's; absent: not the same number of threads in all
    one_process_ci95: tuple[float | None, float | None] | None = None  # of that ratio


class Record(_Part):
    """Everything measured of one provider on one case."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, serialize_by_alias=True)

    schema_: int = Field(SCHEMA, alias="schema", strict=True)  # version of the format; readers leave out others
    run_id: str  # the same for all records of a run
    time: str  # when the record was made: ISO 8601, UTC
    case: Case  # the problem
    provider: str  # as named on the command line
    device: str  # `cpu` or `cuda`
    status: Status  # only `ok` records have `timing`
    code: str | None = None  # why it is not ok, one of `mfbench.results.codes.Code`; newer files may have others
    reason: str | None = None  # the same for people
    correctness: dict[str, Correctness] | None = None  # by the name of the output
    timing: Timing | None = None  # seconds per evaluation
    compile_s: float | None = None  # time of the first evaluation beyond that of the second
    speedup: Speedup | None = None  # over the baseline
    rates: Rates | None = None  # throughput
    roofline: Roofline | None = None  # distance from the machine's limits
    group: Group | None = None  # the processes that shared the case; absent: one without a group
    scaling: Scaling | None = None  # what several processes gained over one
    peak_bytes: int | None = None  # memory beyond inputs and outputs; absent: cannot be measured
    env: dict[str, Any]  # processor, GPU, versions, threads, clocks, load, commit; `source`: hash of a provider's file

    @property
    def crowding(self) -> Crowding | None:
        """Return what other programs did to the measurement; None if they left most rounds alone."""
        if (timing := self.timing) is None:
            return None
        threads = self.env.get("threads")
        env = self.env | {"threads": threads and threads * (self.case.processes or 1)}
        return crowding(timing.rounds, timing.disturbed, timing.foreign_cores, env)

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
    """Return the contents of a file or pipe in UTF-8 without a byte-order mark. A pipe can be read only once.

    Raises:
        UsageError: the file cannot be read.
    """
    try:
        found = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}", code="unreadable-file") from None
    except MemoryError:
        raise UsageError(f"{path}: cannot be read: it does not fit into memory", code="out-of-memory") from None
    if found.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # what `>` writes in Windows PowerShell
        return found.decode("utf-16", errors="replace").encode()
    return found.removeprefix(codecs.BOM_UTF8)


def parse(path: Path, content: bytes) -> tuple[list[Record], list[str]]:
    """Return the records in a file's content, and a note for every line that is not one or is torn.

    One note is enough for a file in which no line looks like a record.
    """
    last = content.rpartition(b"\n")[2]
    if not (has_objects(content) or (last and last[: len(OPENING)] == OPENING[: len(last)])):
        return [], [f"no records in {path} ({_beginning(content)})"]
    lines, torn = _lines(content)
    notes = [f"{path}: the last line is torn and was left out"] if torn else []
    records = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            records.append(Record.model_validate_json(line))
        except ValidationError as error:
            notes.append(f"{path}: line {number} is not a record and was left out: {first_fault(error)}")
    return records, notes


def _beginning(content: bytes) -> str:
    """Describe the first line of a file without records."""
    for number, line in enumerate(content.splitlines(), start=1):
        if line.strip():
            kind = "a record" if is_json(line) else "JSON"
            return f"line {number} is not {kind}: {line.strip()[:LONGEST_QUOTE].decode(errors='replace')!r}"
    return "it is empty"


def _lines(content: bytes) -> tuple[list[bytes], bytes]:
    """Split a file's content into its lines and the torn rest; a last line that only lacks its newline is whole."""
    *lines, last = content.split(b"\n")
    return ([*lines, last], b"") if is_json(last) else (lines, last)


def is_json(line: bytes) -> bool:
    """Return whether a line is whole: JSON of any kind."""
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def other_schemas(content: bytes) -> dict[int, Any]:
    """Return the schema of every line with another schema, by line number.

    Such a line may still validate today and mean something else.
    """
    found = {}
    for number, line in enumerate(_lines(content)[0], start=1):
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


def has_objects(lines: bytes) -> bool:
    """Return whether a line looks like an object with a schema."""
    return any(b'"schema"' in line for line in lines.split(b"\n") if line.startswith(b"{"))
