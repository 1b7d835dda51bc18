"""Phrases that many messages share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def counted(count: int, noun: str, plural: str = "s") -> str:
    """Return the count with its noun, as in "2,000 lines"; `plural` is the ending of several."""
    return f"{count:,} {noun}" + (plural if count != 1 else "")


def nearest(name: str, names: Iterable[str]) -> str:
    """Return the tail of an error message: the nearest valid name, or all of them."""
    names = list(names)
    return _suggestion(name, names) or f"; there are {', '.join(names) or 'none'}"


def one_of(choices: Iterable[str], given: object) -> str:
    """Return the message for a value that is none of a few, with the nearest of them."""
    choices = list(choices)
    return f"expected one of {', '.join(choices)}, got {given!r}{_suggestion(str(given), choices)}"


def _suggestion(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1) or difflib.get_close_matches(name.lower(), names, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
