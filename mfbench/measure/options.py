"""The options of a run: their defaults and their validation, for the command line and the Python interface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mfbench.errors import UsageError
from mfbench.problems.bounds import FRACTION, PROCESSES, SECONDS, THREADS
from mfbench.stats.margin import checked_margin
from mfbench.wording import one_of

DEVICES = ("cpu", "cuda", "all")
BUDGET_S = 5.0  # of timing a case
RESOLVE_BUDGET_S = 120.0  # most for a case with `resolve`
NUMBERS = {"threads": THREADS, "budget": SECONDS, "resolve": FRACTION, "time_limit": SECONDS}
UNSET = ("threads", "budget", "resolve")  # may be None
ONE_PROCESS_ONLY = {
    "resume": "their launches take turns, so that a series is measured as a whole",
    "resolve": "their number of launches is fixed",
}


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What to measure and how, validated on creation.

    Attributes:
        suite: name or TOML file; None: the one case that `axes` describe if they have a size, else the suite `quick`.
        device: "cpu", "cuda" or "all"; None: the best one here.
        provider: names; None: the suite's providers.
        axes: values that replace the suite's, by the name of the axis: size, rank, density, layout, ratings_dtype,
            mask, data, seed; each a value or a list.
        out: the file that records are appended to.
        resume: continue the last run in `out`.
        threads: of PyTorch; None: its present number.
        baseline: the provider that speed-ups are relative to; None: the suite's.
        margin: largest relative difference between two times that count as the same.
        budget: seconds of timing for each case; None: `BUDGET_S`, or `RESOLVE_BUDGET_S` with `resolve`.
        resolve: smallest relative difference that verdicts should tell, which fixes the number of rounds; None: as many
            rounds as the budget allows.
        time_limit: seconds that one answer of a provider may take.
        processes: numbers of processes whose scaling is measured; None: each provider runs in a separate process.

    Raises:
        UsageError: a value that does not fit; the error names the argument.
    """

    suite: str | None = None
    device: str | None = None
    provider: Sequence[str] | None = None
    axes: Mapping[str, Any] = field(default_factory=dict)
    out: Path = Path("mfbench-records.jsonl")
    resume: bool = False
    threads: int | None = None
    baseline: str | None = None
    margin: float = 0.02
    budget: float | None = None
    resolve: float | None = None
    time_limit: float = 300.0
    processes: Sequence[int] | None = None

    def __post_init__(self) -> None:
        from mfbench.problems.cases import parse_overrides  # pydantic is too slow to import for `mfbench --help`

        if self.device not in (None, *DEVICES):
            raise UsageError(one_of(DEVICES, self.device), code="bad-device", argument="device")
        object.__setattr__(self, "provider", _names(self.provider))
        for name, bounds in NUMBERS.items():
            value = getattr(self, name)
            unset = name in UNSET and value is None
            if not unset and not bounds.hold(value):
                raise UsageError(f"expected {bounds}, got {value!r}", code="bad-number", argument=name)
        checked_margin(self.margin)
        object.__setattr__(self, "axes", parse_overrides(self.axes))
        if self.processes is not None:
            object.__setattr__(self, "processes", _processes(self.processes))
            self._check_with_processes()

    def _check_with_processes(self) -> None:
        """Raise UsageError for options that go with one process alone."""
        if self.device not in (None, "cpu"):
            message = f"with several processes expected cpu, got {self.device}"
            raise UsageError(message, code="bad-device", argument="device")
        for name, reason in ONE_PROCESS_ONLY.items():
            if getattr(self, name):
                message = f"cannot be combined with several processes: {reason}"
                raise UsageError(message, code="bad-value", argument=name)

    @property
    def budget_s(self) -> float:
        """Seconds of timing for each case."""
        if self.budget is not None:
            return self.budget
        return BUDGET_S if self.resolve is None else RESOLVE_BUDGET_S


def _processes(given: Any) -> tuple[int, ...]:
    """Return one number or several as a tuple."""
    counts = (given,) if isinstance(given, int) else tuple(given)
    for count in counts:
        if isinstance(count, bool) or not PROCESSES.hold(count):
            message = f"expected numbers of processes, each {PROCESSES}, got {count!r}"
            raise UsageError(message, code="bad-number", argument="processes")
        if counts.count(count) > 1:
            message = f"expected each number once, got {count} more than once"
            raise UsageError(message, code="bad-number", argument="processes")
    if not counts:
        raise UsageError("expected one number or several, got none", code="bad-number", argument="processes")
    return counts


def _names(provider: Any) -> tuple[str, ...] | None:
    """Return one name or several as a tuple."""
    names = (provider,) if isinstance(provider, str) else provider
    if names is None:
        return None
    if callable(names) or not all(isinstance(name, str) for name in names):
        message = f"expected names, your own function as 'path/to/file.py:function', got {provider!r}"
        raise UsageError(message, code="bad-provider", argument="provider")
    return tuple(names)
