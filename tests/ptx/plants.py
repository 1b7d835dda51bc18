"""Faults planted in compiled PTX, one at a time; line numbers stay what they were."""

from __future__ import annotations

import re
from collections.abc import Iterator


def removed(ptx: str, statement: str) -> Iterator[tuple[int, str]]:
    """(line number, text without it) for each line that is the statement, a regular expression."""
    yield from _edited(ptx, rf"(\s*){statement};(.*)", r"\1\2")


def unguarded(ptx: str, opcode: str) -> Iterator[tuple[int, str]]:
    """(line number, text) for each guarded instruction of that opcode, as if its predicate were true."""
    yield from _edited(ptx, rf"(\s*)@!?%\w+\s+({opcode}.*)", r"\1\2")


def swapped_operands(ptx: str) -> Iterator[tuple[int, str]]:
    """(line number, text) for each mma whose first two registers of A change places."""
    mma = r"(.*mma\.sync[^{]*\{[^}]*\},\s*\{\s*)([%\w]+)(,\s*)([%\w]+)(.*)"
    yield from _edited(ptx, mma, r"\1\4\3\2\5")


def _edited(ptx: str, pattern: str, replacement: str) -> Iterator[tuple[int, str]]:
    lines = ptx.split("\n")
    for i, line in enumerate(lines):
        if match := re.fullmatch(pattern, line):
            yield i + 1, "\n".join([*lines[:i], match.expand(replacement), *lines[i + 1 :]])
