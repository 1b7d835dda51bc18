"""Faults planted in compiled PTX, one at a time: the number of a line and the text with that line changed."""

from __future__ import annotations

import re
from collections.abc import Iterator

BARRIER, WARP_BARRIER = r"bar\.sync\s+0", r"bar\.warp\.sync\s+-1"
WAIT, COMMIT = r"cp\.async\.wait_group\s+\S+", r"cp\.async\.commit_group"


def removed(ptx: str, statement: str) -> Iterator[tuple[int, str]]:
    """Without one of the lines that match `statement`."""
    yield from _edited(ptx, rf"(\s*){statement};(.*)", r"\1\2")


def unguarded(ptx: str, opcode: str) -> Iterator[tuple[int, str]]:
    """One guarded instruction of that opcode executed whatever its predicate says."""
    yield from _edited(ptx, rf"(\s*)@!?%\w+\s+({opcode}.*)", r"\1\2")


def unmasked_copies(ptx: str) -> Iterator[tuple[int, str]]:
    """One cp.async that reads all of its bytes, whatever the predicate behind its size says."""
    yield from _edited(ptx, r"(\s*cp\.async.*\],\s*\w+)\s*,\s*%\w+;(.*)", r"\1;\2")


def swapped_operands(ptx: str) -> Iterator[tuple[int, str]]:
    """One mma with the first two registers of A in each other's place."""
    mma = r"(.*mma\.sync[^{]*\{[^}]*\},\s*\{\s*)([%\w]+)(,\s*)([%\w]+)(.*)"
    yield from _edited(ptx, mma, r"\1\4\3\2\5")


def _edited(ptx: str, pattern: str, replacement: str) -> Iterator[tuple[int, str]]:
    lines = ptx.split("\n")
    for i, line in enumerate(lines):
        if match := re.fullmatch(pattern, line):
            yield i + 1, "\n".join([*lines[:i], match.expand(replacement), *lines[i + 1 :]])
