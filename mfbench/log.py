"""Messages beside a command's result, on stderr: notes unless --quiet, and steps with --verbose."""

from __future__ import annotations

import sys

_level = 0


def set_level(level: int) -> None:
    """Set what is printed: -1 errors only; 0 notes, too; 1 also every step, and where an error came from."""
    global _level
    _level = level


def level() -> int:
    """Return the present level."""
    return _level


def note(message: str) -> None:
    """Print what the user should know and what stops nothing."""
    if level() >= 0:
        print(f"mfbench: {message}", file=sys.stderr)


def step(message: str) -> None:
    """Print what is being done."""
    if level() >= 1:
        print(f"mfbench: {message}", file=sys.stderr, flush=True)
