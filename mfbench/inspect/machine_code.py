"""The instruction mix of a kernel's main loop, from NVIDIA's SASS or AMD's assembly."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from pydantic import BaseModel, Field

Widths = dict[int, int]  # bytes a thread: how many instructions
Span = tuple[int, int]  # of lines


class Mix(BaseModel):
    """Instructions of one pass of the main loop, a warp (or wave). Branches inside it count on both sides."""

    instructions: int
    issued: int  # to the scheduler of the vector units: on NVIDIA all, on AMD those for vectors and matrices
    matrix: int = 0
    vector: int = 0  # floating-point, on the vector units
    load: Widths = Field(default_factory=dict)  # from global memory
    load_once: Widths = Field(default_factory=dict)  # those outside the loops inside this one
    store: Widths = Field(default_factory=dict)
    atomic: Widths = Field(default_factory=dict)
    shared_load: Widths = Field(default_factory=dict)  # threads may share an address
    fragment_load: Widths = Field(default_factory=dict)  # of a matrix operand from shared memory, all different
    shared_store: Widths = Field(default_factory=dict)
    shuffle: int = 0
    barrier: int = 0

    @staticmethod
    def bytes(widths: Widths) -> int:
        """Bytes that a thread moves by instructions of such widths."""
        return sum(width * count for width, count in widths.items())


class _Line(NamedTuple):
    label: str  # where one stands here, else ""
    opcode: str  # where there is an instruction, else ""
    operands: str


def main_loop(assembly: str, chunks: int = 1) -> Mix:
    """The mix of the loop over tiles: the one that holds most of the arithmetic.

    Args:
        assembly: of one kernel, as `nvdisasm -c` or LLVM prints it.
        chunks: passes of the loops inside it, where there are such.

    Raises:
        ValueError: there is no loop with arithmetic.
    """
    nvidia = ".L_x_" in assembly
    kinds = _NVIDIA if nvidia else _AMD
    lines = list(_nvidia_lines(assembly) if nvidia else _amd_lines(assembly))
    end = max((at for at, line in enumerate(lines) if line.opcode in ("EXIT", "s_endpgm")), default=len(lines))
    spans = _backward_branches(lines[:end])  # what lies behind was moved out of loops and branches back into them
    arithmetic = {span: _arithmetic(lines[slice(*span)], kinds) for span in spans}
    loops = sorted((span for span, amount in arithmetic.items() if amount), key=lambda span: span[1] - span[0])
    if not loops:
        raise ValueError("assembly: expected a loop with arithmetic, found none")
    # An outer loop spans more; a first pass that was peeled off is no loop.
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
    """Whether an atomic addition became a loop."""
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
    """Matrix instructions, or where there are none floating-point ones."""
    counts = Counter(kind for line in lines for kind in ("matrix", "vector") if re.match(kinds[kind], line.opcode))
    return 1000 * counts["matrix"] + counts["vector"]


def _mix(weighted: list[tuple[_Line, int]], kinds: dict[str, str]) -> Mix:
    """Counts of the lines, each as often as its weight says."""
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
_BESIDE = ("s_", "ds_", "buffer_", "global_", "flat_")  # AMD's schedulers start these beside a vector instruction
# An instruction is of the first kind whose pattern its opcode starts with.
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
# The first that occurs in an opcode says how many bytes a thread moves.
_WIDTHS = (
    (r"F32x4|\.128|dwordx4|b128|read2\w*_b64|write2\w*_b64|2addr\w*_b64|\.M(T)?88\.4|v4", 16),
    (r"dwordx3|b96", 12),
    (r"F32x2|\.64|dwordx2|(read|write)2\w*_b32|2addr\w*_b32|b64|f64|_x2|\.M(T)?88\.2", 8),
    (r"\.[US]8|byte|[ui]8|b8", 1),
    (r"\.[US]16|short|[uib]16|\.F16|pk_add", 2),
)


def _width(opcode: str) -> int:
    return next((width for pattern, width in _WIDTHS if re.search(pattern, opcode)), 4)
