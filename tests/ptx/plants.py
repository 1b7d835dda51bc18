"""Faults planted in compiled PTX, one at a time: the number of a line and the text with that line changed."""

from __future__ import annotations

import re
from collections.abc import Iterator

BARRIER, WARP_BARRIER = r"bar\.sync\s+0", r"bar\.warp\.sync\s+-1"
WAIT, COMMIT = r"cp\.async\.wait_group\s+\S+", r"cp\.async\.commit_group"
WGMMA_FENCE, WGMMA_COMMIT = r"wgmma\.fence\.sync\.aligned", r"wgmma\.commit_group\.sync\.aligned"
WGMMA_WAIT, PROXY_FENCE = r"wgmma\.wait_group\.sync\.aligned\s+\d+", r"fence\.proxy\.async\S*"
ATOM, STEP = 1024 >> 4, 32 >> 4  # of a swizzled operand in shared memory, in a descriptor's unit of 16 bytes


def removed(ptx: str, statement: str) -> Iterator[tuple[int, str]]:
    """Without one of the lines that match `statement`."""
    yield from _edited(ptx, rf"(\s*){statement};(.*)", r"\1\2")


def unguarded(ptx: str, opcode: str) -> Iterator[tuple[int, str]]:
    """One guarded instruction of that opcode executed whatever its predicate says."""
    yield from _edited(ptx, rf"(\s*)@!?%\w+\s+({opcode}.*)", r"\1\2")


def unmasked_copies(ptx: str) -> Iterator[tuple[int, str]]:
    """One cp.async that reads all of its bytes, whatever the predicate behind its size says."""
    yield from _edited(ptx, r"(\s*cp\.async.*\],\s*\w+)\s*,\s*%\w+;(.*)", r"\1;\2")


def short_waits(ptx: str) -> Iterator[tuple[int, str]]:
    """One wait for wgmma that leaves one group more pending."""
    for pending in range(4):
        yield from _edited(ptx, rf"(\s*wgmma\.wait_group\.sync\.aligned\s+){pending};(.*)", rf"\g<1>{pending + 1};\2")


def shifted_descriptors(ptx: str, units: int) -> Iterator[tuple[int, str]]:
    """One wgmma whose B lies `units` of 16 bytes further on."""
    wgmma = r"(\s*)(wgmma\.mma_async[^;]*,\s*)(%rd\d+)(,\s*(?:%p\d+|\d)(?:,\s*-?\d)+;.*)"
    yield from _edited(ptx, wgmma, rf"\1.reg .b64 %shifted; add.s64 %shifted, \3, {units}; \2%shifted\4")


def swapped_operands(ptx: str) -> Iterator[tuple[int, str]]:
    """One mma or wgmma with the first two registers of A in each other's place."""
    mma = r"(.*(?:mma\.sync|wgmma)[^{]*\{[^}]*\},\s*\{\s*)([%\w]+)(,\s*)([%\w]+)(.*)"
    yield from _edited(ptx, mma, r"\1\4\3\2\5")


def _edited(ptx: str, pattern: str, replacement: str) -> Iterator[tuple[int, str]]:
    lines = ptx.split("\n")
    for i, line in enumerate(lines):
        if match := re.fullmatch(pattern, line):
            yield i + 1, "\n".join([*lines[:i], match.expand(replacement), *lines[i + 1 :]])
