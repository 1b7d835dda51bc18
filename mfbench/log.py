"""What a command says beside its result, on stderr: notes, unless --quiet; what it is doing, with --verbose."""

from __future__ import annotations

import sys

_level = 0


def set_level(level: int) -> None:
    """-1: errors only; 0: notes too; 1: also every step, and where an error came from."""
    global _level
    _level = level


def level() -> int:
    return _level


def note(message: str) -> None:
    """Something that the user should know, and that stops nothing."""
    if level() >= 0:
        print(f"mfbench: {message}", file=sys.stderr)


def step(message: str) -> None:
    """What is being done."""
    if level() >= 1:
        print(f"mfbench: {message}", file=sys.stderr, flush=True)
