"""Instructions of compiled kernels that no test executes.

The tests execute PTX on a CPU with an interpreter of their own (tests/ptx), which this package does not import: the
names of what it knows are listed here, and a test holds the list to the interpreter.
"""

from __future__ import annotations

import re

# Opcodes, each with its first modifier where the interpreter tells them apart by it.
EXECUTED = frozenset({
    "abs", "add", "and", "atom", "bar", "barrier", "bfe", "bfi", "bra", "brev", "clz", "cp.async", "cvt", "cvta",
    "div", "elect", "ex2", "exit", "fence", "fma", "ld", "ldmatrix", "lg2", "lop3", "mad", "max", "mbarrier.init",
    "mbarrier.inval", "mbarrier.try_wait", "membar", "min", "mma", "mov", "mul", "neg", "not", "or", "popc", "prmt",
    "rcp", "red", "redux", "rem", "ret", "rsqrt", "selp", "setp", "shf", "shfl", "shl", "shr", "sqrt", "st",
    "stmatrix", "sub", "tcgen05.alloc", "tcgen05.commit", "tcgen05.dealloc", "tcgen05.ld", "tcgen05.mma",
    "tcgen05.relinquish_alloc_permit", "tcgen05.st", "tcgen05.wait::ld", "tcgen05.wait::st", "vote",
    "wgmma.commit_group", "wgmma.fence", "wgmma.mma_async", "wgmma.wait_group", "xor",
})  # fmt: skip
_NAME = r"([a-z]\w*)(\.[\w:]+)?(?:\.[\w:]+)*(?=[\s;])"
_INSTRUCTION = re.compile(r"^[\s{]*(?:[\w$%.]+:(?!:)\s*)*(?:@!?%?\w+\s+)?" + _NAME, re.MULTILINE)
_COMMENT = re.compile(r"//.*")


def unexecuted(ptx: str) -> list[str]:
    """Return the instructions of a PTX module that the tests' interpreter does not know, sorted."""
    body = _COMMENT.sub("", ptx[ptx.find(".entry") : ptx.find(".section")])
    found = {(opcode, opcode + modifier) for opcode, modifier in _INSTRUCTION.findall(body)}
    return sorted(name for opcode, name in found if not EXECUTED & {opcode, name})
