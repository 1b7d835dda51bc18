"""The instruction mix of a kernel's main loop, from NVIDIA's SASS or AMD's assembly."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from pydantic import BaseModel, Field

Widths = dict[int, int]  # number of instructions by bytes per thread
Span = tuple[int, int]  # of lines


class Mix(BaseModel):
    """Instructions per warp (or wave) in one pass of the main loop, counting both sides of branches."""

    instructions: int
    issued: int  # by the scheduler of the vector units: all on NVIDIA, vector and matrix instructions on AMD
    matrix: int = 0
    vector: int = 0  # floating-point, on the vector units
    load: Widths = Field(default_factory=dict)  # from global memory
    load_once: Widths = Field(default_factory=dict)  # those outside inner loops
    store: Widths = Field(default_factory=dict)
    atomic: Widths = Field(default_factory=dict)
    shared_load: Widths = Field(default_factory=dict)  # possibly one address for several threads
    fragment_load: Widths = Field(default_factory=dict)  # of a matrix operand from shared memory, distinct addresses
    shared_store: Widths = Field(default_factory=dict)
    shuffle: int = 0
    barrier: int = 0

    @staticmethod
    def bytes(widths: Widths) -> int:
        """Return the bytes that a thread moves by instructions of these widths."""
        return sum(width * count for width, count in widths.items())


class _Line(NamedTuple):
    label: str  # or ""
    opcode: str  # or ""
    operands: str


def main_loop(assembly: str, chunks: int = 1) -> Mix:
    """Return the instruction mix of the loop over tiles, the one with most of the arithmetic.

    Args:
        assembly: of one kernel, from `nvdisasm -c` or LLVM.
        chunks: passes of its inner loops, if any.

    Raises:
        ValueError: no loop has arithmetic.
    """
    nvidia = ".L_x_" in assembly
    kinds = _NVIDIA if nvidia else _AMD
    lines = list(_nvidia_lines(assembly) if nvidia else _amd_lines(assembly))
    end = max((at for at, line in enumerate(lines) if line.opcode in ("EXIT", "s_endpgm")), default=len(lines))
    # Code behind the end was moved out of loops and branches back into them, unless all loops are there.
    for part in (lines[:end], lines):
        arithmetic = {span: _arithmetic(lines[slice(*span)], kinds) for span in _backward_branches(part)}
        loops = sorted((span for span, amount in arithmetic.items() if amount), key=lambda span: span[1] - span[0])
        if loops:
            break
    else:
        raise ValueError("assembly: expected a loop with arithmetic, found none")
    # An outer loop spans more lines; a peeled first pass is no loop.
    most = arithmetic[loops[-1]]
    inner = {loop: [span for span in loops if span != loop and _holds(loop, span)] for loop in loops}
    loop = next(span for span in loops if 2 * arithmetic[span] > most and (chunks == 1 or inner[span]))
    weighted = [
        (line, chunks if any(begin <= at < end for begin, end in inner[loop]) else 1)
        for at, line in enumerate(lines[slice(*loop)], loop[0])
        if line.opcode
    ]
    return _mix(weighted, kinds)


def _holds(outer: Span, inner: Span) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1]


def compare_and_swap(assembly: str) -> bool:
    """Return whether an atomic addition became a loop of compare-and-swap."""
    return re.search(r"\bATOM\w*\.\S*CAS|_cmpswap", assembly) is not None


def _nvidia_lines(assembly: str) -> Iterator[_Line]:
    for text in assembly.splitlines():
        if label := re.match(r"(\.L_x_\d+):", text):
            yield _Line(label[1], "", "")
        elif found := re.match(r"\s+/\*[0-9a-f]+\*/\s+(?:@!?\w+\s+)?([A-Z][\w.]*)(.*)", text):
            yield _Line("", found[1], found[2])


def _amd_lines(assembly: str) -> Iterator[_Line]:
    for text in assembly.splitlines():
        if label := re.match(r"(\.L\w+):", text):
            yield _Line(label[1], "", "")
        elif found := re.match(r"\t([a-z]\w*)(.*)", text):
            yield _Line("", found[1], found[2])


def _backward_branches(lines: list[_Line]) -> Iterator[Span]:
    seen: dict[str, int] = {}
    for index, line in enumerate(lines):
        if line.label:
            seen[line.label] = index
        elif line.opcode.startswith(("BRA", "s_cbranch", "s_branch")):
            target = re.search(r"\.L\w+", line.operands)
            if target and target[0] in seen:
                yield seen[target[0]], index + 1


def _arithmetic(lines: list[_Line], kinds: dict[str, str]) -> int:
    """Rank a loop by its matrix instructions, then by its floating-point instructions."""
    counts = Counter(kind for line in lines for kind in ("matrix", "vector") if re.match(kinds[kind], line.opcode))
    return 1000 * counts["matrix"] + counts["vector"]


def _mix(weighted: list[tuple[_Line, int]], kinds: dict[str, str]) -> Mix:
    """Count the lines with their weights."""
    totals: Counter[str] = Counter()
    widths: dict[str, Counter[int]] = {}
    for line, times in weighted:
        kind = next((kind for kind, pattern in kinds.items() if re.match(pattern, line.opcode)), "")
        if kind in _WITH_WIDTH:
            widths.setdefault(kind, Counter())[_width(line.opcode)] += times
            if kind == "load" and times == 1:
                widths.setdefault("load_once", Counter())[_width(line.opcode)] += 1
        elif kind:
            totals[kind] += times
        elif "_dpp" in line.opcode:
            totals["shuffle"] += times
        totals["instructions"] += times
        totals["issued"] += times * (not line.opcode.startswith(_BESIDE))
    by_width = {kind: dict(sorted(found.items())) for kind, found in widths.items()}
    return Mix.model_validate({**totals, **by_width})


_WITH_WIDTH = ("load", "store", "atomic", "shared_load", "fragment_load", "shared_store")
_BESIDE = ("s_", "ds_", "buffer_", "global_", "flat_")  # AMD issues these beside a vector instruction
# The first kind whose pattern matches the start of an opcode applies.
_NVIDIA = {
    "matrix": r"(H|HG|D|I|Q|UTC[A-Z]+)MMA",
    "vector": r"[FDH](ADD|MUL|FMA)2?\b",
    "atomic": r"(RED|REDG|ATOM|ATOMG)\.",
    "load": r"(LDG|LDGSTS)\b",
    "store": r"STG\b",
    "shared_load": r"LDS\b",
    "fragment_load": r"LDSM\b",
    "shared_store": r"(STS|STSM)\b",
    "shuffle": r"SHFL",
    "barrier": r"BAR\.",
}
_AMD = {
    "matrix": r"v_(mfma|wmma|smfmac)",
    "vector": r"v_(pk_|dual_)?(add|sub|subrev|mul|fma|fmac|mac|fmaak|fmamk)_f(16|32|64)(?!.*_dpp)",
    "atomic": r"(buffer|global|flat)_atomic",
    "load": r"(buffer|global|flat)_load",
    "store": r"(buffer|global|flat)_store",
    "fragment_load": r"ds_(read|load)\w*_tr_",
    "shared_load": r"ds_(read|load)",
    "shared_store": r"ds_(write|store)",
    "shuffle": r"(ds_b?permute|ds_swizzle|v_permlane|v_readlane)",
    "barrier": r"s_barrier",
}
# Bytes per thread; the first pattern that occurs in an opcode applies.
_WIDTHS = (
    (r"F32x4|\.128|dwordx4|b128|read2\w*_b64|write2\w*_b64|2addr\w*_b64|\.M(T)?88\.4|v4", 16),
    (r"dwordx3|b96", 12),
    (r"F32x2|\.64|dwordx2|(read|write)2\w*_b32|2addr\w*_b32|b64|f64|_x2|\.M(T)?88\.2", 8),
    (r"\.[US]8|byte|[ui]8|b8", 1),
    (r"\.[US]16|short|[uib]16|\.F16|pk_add", 2),
)


def _width(opcode: str) -> int:
    return next((width for pattern, width in _WIDTHS if re.search(pattern, opcode)), 4)
