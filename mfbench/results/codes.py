"""Failure codes: why a measurement has no timing, as stable short names for programs.

Records carry the code beside `reason`, which is for people and may be reworded. Codes are never renamed or reused.
"""

from __future__ import annotations

from enum import Enum
from typing import Literal, NamedTuple

Status = Literal["ok", "wrong", "oom", "timeout", "crashed", "error", "skipped"]


class Code(str, Enum):
    """Reason for a record that is not `ok`. Each code belongs to one status and has a one-line meaning."""

    status: Status
    meaning: str

    def __new__(cls, value: str, status: Status, meaning: str) -> Code:
        member = str.__new__(cls, value)
        member._value_ = value
        member.status = status
        member.meaning = meaning
        return member

    BAD_OUTPUTS = "bad-outputs", "wrong", "did not return a loss and five gradients as plain dense tensors"
    BAD_SHAPE = "bad-shape", "wrong", "an output does not have the expected shape"
    BAD_DTYPE = "bad-dtype", "wrong", "a gradient does not have its parameter's dtype"
    CHANGED_INPUT = "changed-input", "wrong", "wrote to an input tensor"
    NOT_FINITE = "not-finite", "wrong", "an output has NaN or Inf where the exact result has not, or the reverse"
    OFF_BOUND = "off-bound", "wrong", "an output's error exceeds its bound"
    WRONG_WHILE_TIMED = "wrong-while-timed", "wrong", "an output was wrong during a timed sample"
    STALE_RESULT = "stale-result", "wrong", "outputs were right before timing and are wrong on new parameters after it"
    REPLAYED = "replayed", "wrong", "much faster on parameters it has seen than on new ones, as cached results are"
    CLOCK_MISMATCH = "clock-mismatch", "wrong", "samples took longer by the harness's clock than by the worker's"
    GARBLED_PIPE = "garbled-pipe", "wrong", "wrote into the pipe between worker and harness"
    OOM = "oom", "oom", "an allocation failed"
    KILLED = "killed", "oom", "the worker got SIGKILL, as the system sends when memory runs out"
    ORACLE_OOM = "oracle-oom", "oom", "the float64 oracle of the case does not fit into memory"
    TIMEOUT = "timeout", "timeout", "no answer within the time limit"
    SIGNAL = "signal", "crashed", "the worker died of a signal, such as SIGSEGV"
    EXIT = "exit", "crashed", "the worker exited without an answer"
    CLOSED_PIPE = "closed-pipe", "crashed", "the worker closed its pipe to the harness"
    EXCEPTION = "exception", "error", "the provider raised an exception"
    PROVIDER_LOAD_FAILED = "provider-load-failed", "error", "the provider could not be imported or found"
    DATA_UNAVAILABLE = "data-unavailable", "skipped", "the case's data set is not available here"
    NO_MASK_FOR_INTEGERS = "no-mask-for-integers", "skipped", "integer ratings have no NaN to mark unobserved entries"
    NEEDS_GPU = "needs-gpu", "skipped", "the provider runs on a GPU only"
    TOO_LARGE_FOR_MEMORY = "too-large-for-memory", "skipped", "the inputs do not fit into memory in all processes"


class Finding(NamedTuple):
    """One thing that is wrong with what a provider returned."""

    code: Code
    message: str
    output: str = ""  # name of the output it is about, if it is about one


class ProviderFailure(Exception):
    """A provider did not deliver a correct answer.

    Attributes:
        code: why, for programs; it implies the record's status.
        reason: why, for people.
        usage_code: a key of `mfbench.errors.CODES`, if the user's name or file is at fault.
    """

    def __init__(self, code: Code, reason: str, usage_code: str | None = None) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.usage_code = usage_code
