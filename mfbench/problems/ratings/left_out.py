"""What is left out of a rating file: counted and named in warnings, never dropped in silence."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from mfbench.wording import counted

NAMED = 10  # places that a warning lists; it counts all of them
SHOWN = 60  # characters of a line that a message quotes


class DataWarning(UserWarning):
    """Ratings of a file that were left out; the message says which and why."""


class Lines:
    """The lines of a file that hold no rating."""

    def __init__(self) -> None:
        self.count = 0
        self.numbers: list[int] = []
        self.first = ""

    def add(self, bad: Iterable[tuple[int, bytes]]) -> None:
        """Add lines as (number from 1, content)."""
        for number, line in bad:
            if not self.count:
                self.first = quoted(line)
            if self.count <= NAMED:
                self.numbers.append(number)
            self.count += 1

    def report(self, name: str, expected: str) -> None:
        if self.count:
            warn(
                f"{name}: {counted(self.count, 'line')} left out, expected {expected}: "
                f"{listed([str(number) for number in self.numbers])} (line {self.numbers[0]} is {self.first})"
            )


def quoted(line: bytes) -> str:
    """Return the beginning of a line as a message shows it."""
    return repr(line.decode("utf-8", errors="replace").strip()[:SHOWN])


def listed(names: list[str]) -> str:
    """Join names with commas, cut after the first few."""
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def warn(message: str) -> None:
    warnings.warn(message, DataWarning, stacklevel=2)
