"""The instruction mix of a kernel's main loop, from NVIDIA's SASS or AMD's assembly."""

from __future__ import annotations

import re
from collections import Counter

from pydantic import BaseModel, Field

Widths = dict[int, int]  # number of instructions by bytes per thread
Loop = frozenset[int]  # of the numbers of its instructions


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


def main_loop(assembly: str, chunks: int = 1) -> Mix:
    """Return the instruction mix of the loop over tiles, the one with most of the arithmetic.

    Args:
        assembly: of one kernel, from `nvdisasm -c` or LLVM.
        chunks: passes of its inner loops, if any.

    Raises:
        ValueError: no loop has arithmetic.
    """
    if ".L_x_" in assembly:
        kinds, (opcodes, loops) = _NVIDIA, _nvidia(assembly)
    else:
        kinds, (opcodes, loops) = _AMD, _amd(assembly)
    arithmetic = {loop: _arithmetic([opcodes[at] for at in loop], kinds) for loop in loops}
    by_size = sorted((loop for loop in loops if arithmetic[loop]), key=len)
    if not by_size:
        raise ValueError("assembly: expected a loop with arithmetic, found none")
    # An outer loop has more instructions; a peeled first pass is no loop.
    most = arithmetic[by_size[-1]]
    inner = {loop: [other for other in by_size if other < loop] for loop in by_size}
    main = [loop for loop in by_size if 2 * arithmetic[loop] > most]
    loop = next((loop for loop in main if chunks == 1 or inner[loop]), main[0])  # inner loops may be unrolled
    weighted = [(opcodes[at], chunks if any(at in part for part in inner[loop]) else 1) for at in sorted(loop)]
    return _mix(weighted, kinds)


def compare_and_swap(assembly: str) -> bool:
    """Return whether an atomic addition became a loop of compare-and-swap."""
    return re.search(r"\bATOM\w*\.\S*CAS|_cmpswap", assembly) is not None


def _nvidia(assembly: str) -> tuple[list[str], list[Loop]]:
    """Return the opcodes, and a loop for each branch back to a label."""
    opcodes: list[str] = []
    labels: dict[str, int] = {}
    spans = []
    for text in assembly.splitlines():
        if label := re.match(r"(\.L_x_\d+):", text):
            labels[label[1]] = len(opcodes)
        elif found := re.match(r"\s+/\*[0-9a-f]+\*/\s+(?:@!?\w+\s+)?([A-Z][\w.]*)(.*)", text):
            opcodes.append(found[1])
            target = re.search(r"\.L_x_\d+", found[2])
            if found[1].startswith("BRA") and target and target[0] in labels:
                spans.append((labels[target[0]], len(opcodes)))
    # Code behind the last exit was moved out of loops, and branches back into them.
    end = max((at for at, opcode in enumerate(opcodes) if opcode == "EXIT"), default=len(opcodes))
    return opcodes, [frozenset(range(begin, stop)) for begin, stop in spans if stop <= end]


def _amd(assembly: str) -> tuple[list[str], list[Loop]]:
    """Return the opcodes and loops. LLVM's comments name the loop of every block; branches back may cross loops."""
    opcodes: list[str] = []
    headers: list[str] = []  # of the innermost loop that an instruction is in
    around: dict[str, list[str]] = {}  # headers of the loops that a loop is in
    block = header = ""
    parents: list[str] = []
    for text in assembly.splitlines():
        if found := re.match(r"(?:\.L|; %)(BB\w+|bb\.\d+):", text):
            block, header, parents = found[1], "", []
        elif found := re.match(r"\t([a-z]\w*)", text):
            opcodes.append(found[1])
            headers.append(header)
            continue
        parents += re.findall(r"; *Parent Loop (BB\w+)", text)
        if found := re.search(r"; *in Loop: Header=(BB\w+)", text):
            header = found[1]
        elif re.search(r"; *=> *This (Inner )?Loop Header", text):
            header = block
            around[header] = parents
    inside = [{outer, *(name for name in around if outer in around[name])} for outer in around]
    return opcodes, [frozenset(at for at, name in enumerate(headers) if name in names) for names in inside]


def _arithmetic(opcodes: list[str], kinds: dict[str, str]) -> int:
    """Rank a loop by its matrix instructions, then by its floating-point instructions."""
    counts = Counter(kind for opcode in opcodes for kind in ("matrix", "vector") if re.match(kinds[kind], opcode))
    return 1000 * counts["matrix"] + counts["vector"]


def _mix(weighted: list[tuple[str, int]], kinds: dict[str, str]) -> Mix:
    """Count the opcodes with their weights."""
    totals: Counter[str] = Counter()
    widths: dict[str, Counter[int]] = {}
    for opcode, times in weighted:
        kind = next((kind for kind, pattern in kinds.items() if re.match(pattern, opcode)), "")
        if kind in _WITH_WIDTH:
            widths.setdefault(kind, Counter())[_width(opcode)] += times
            if kind == "load" and times == 1:
                widths.setdefault("load_once", Counter())[_width(opcode)] += 1
        elif kind:
            totals[kind] += times
        elif "_dpp" in opcode:
            totals["shuffle"] += times
        totals["instructions"] += times
        totals["issued"] += times * (not opcode.startswith(_BESIDE))
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
