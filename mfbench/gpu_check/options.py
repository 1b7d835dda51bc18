"""The options of `mfbench gpu-check`, for both of its parsers: click's, and Python's own where click is missing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mfbench.problems.bounds import SEED, Bounds

SECONDS = Bounds(10, 3600)


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """What to write where, and how long it may take.

    Attributes:
        out: the file that records are appended to; page and summary stand beside it.
        seconds: after which nothing more is begun. What was begun has `run.GRACE_S` more.
        seed: of all random numbers.
    """

    out: Path = Path("mfbench-gpu-check.jsonl")
    seconds: float = 440.0
    seed: int = 1


class Option(NamedTuple):
    """One option as both parsers need it."""

    name: str
    kind: type
    bounds: Bounds | None
    metavar: str
    help: str

    @property
    def default(self) -> Any:
        """Value where the option is not given."""
        return getattr(CheckOptions, self.name)


OPTIONS = (
    Option("out", Path, None, "FILE.jsonl", "The file that records are appended to; page and summary go beside it."),
    Option("seconds", float, SECONDS, "S", "Begin nothing after this time."),
    Option("seed", int, SEED, "S", "Of all random numbers."),
)
