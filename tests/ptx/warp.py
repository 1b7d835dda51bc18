"""What the threads of a warp do together: shuffles, votes, reductions, barriers."""

from __future__ import annotations

import numpy as np

from .errors import Diverged
from .parser import Vector
from .program import Code, Execute, instruction
from .races import WARP
from .types import TYPES

LANES = np.arange(WARP)


def active_warps(block, mask, code: Code) -> np.ndarray:
    """Indices of the warps that take part, each with all of its threads."""
    if mask is None:
        return np.arange(block.threads // WARP)
    lanes = mask.reshape(-1, WARP)
    whole, some = lanes.all(axis=1), lanes.any(axis=1)
    if (whole != some).any():
        instruction = code.instruction
        message = f"warp {int((whole != some).argmax())} is divergent at a warp-wide instruction"
        raise Diverged(message, instruction.line, instruction.text)
    return np.flatnonzero(some)


def whole_warps(code: Code, members) -> None:
    """Refuse a member mask other than a constant of all threads or a register (taken to name those active)."""
    if getattr(members, "bits", -1) & 0xFFFFFFFF != 0xFFFFFFFF:
        raise code.unsupported("a member mask of less than a warp")


def _source_lane(mode: str, b: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lane to read, [warps, lanes], and whether it is in range. `c`: the clamp and, from bit 8, a segment mask."""
    clamp, segment = c & 31, c >> 8 & 31
    lowest = LANES & segment
    highest = lowest | clamp & ~segment
    if mode == "up":
        source = LANES - b
        return source, source >= highest
    source = {"down": LANES + b, "bfly": LANES ^ b, "idx": lowest | b & ~segment}[mode]
    return source, source <= highest


@instruction("shfl")
def shfl(code: Code) -> Execute:
    _, mode, own = code.modifiers
    if mode not in ("up", "down", "bfly", "idx") or own != "b32":
        raise code.unsupported(".".join(["shfl", *code.modifiers]))
    results = code.operands[0].items if isinstance(code.operands[0], Vector) else (code.operands[0], None)
    value, b, c = (code.reader(operand, TYPES["u32"]) for operand in code.operands[1:4])
    write, write_inside = code.writer(results[0], TYPES["b32"]), code.writer(results[1], TYPES["pred"])
    whole_warps(code, code.operands[4])

    def execute(block, mask):
        active_warps(block, mask, code)
        lanes, clamps = (read(block).reshape(-1, WARP).astype(np.int64) for read in (b, c))
        source, inside = _source_lane(mode, lanes & 31, clamps)
        source = np.where(inside, source, LANES)
        write(block, np.take_along_axis(value(block).reshape(-1, WARP), source, axis=1).ravel(), mask)
        write_inside(block, inside.ravel(), mask)

    return execute


REDUCTIONS = {
    "add": np.add.reduce,
    "min": np.minimum.reduce,
    "max": np.maximum.reduce,
    "and": np.bitwise_and.reduce,
    "or": np.bitwise_or.reduce,
    "xor": np.bitwise_xor.reduce,
}


@instruction("redux")
def redux(code: Code) -> Execute:
    _, operation, own = code.modifiers
    kind = code.type(own)
    if operation not in REDUCTIONS or kind.dtype.kind == "f":
        raise code.unsupported(".".join(["redux", *code.modifiers]))
    read, write, reduce = (
        code.reader(code.operands[1], kind),
        code.writer(code.operands[0], kind),
        REDUCTIONS[operation],
    )
    whole_warps(code, code.operands[2])

    def execute(block, mask):
        active_warps(block, mask, code)
        totals = reduce(read(block).reshape(-1, WARP), axis=1, dtype=kind.dtype)
        write(block, np.repeat(totals, WARP), mask)

    return execute


@instruction("vote")
def vote(code: Code) -> Execute:
    _, mode, own = code.modifiers
    functions = {
        ("all", "pred"): lambda lanes: lanes.all(axis=1),
        ("any", "pred"): lambda lanes: lanes.any(axis=1),
        ("uni", "pred"): lambda lanes: lanes.all(axis=1) | ~lanes.any(axis=1),
        ("ballot", "b32"): lambda lanes: (lanes.astype(np.uint32) << LANES.astype(np.uint32)).sum(axis=1),
    }
    if (mode, own) not in functions:
        raise code.unsupported(".".join(["vote", *code.modifiers]))
    read, write = code.reader(code.operands[1], TYPES["pred"]), code.writer(code.operands[0], code.type(own))
    whole_warps(code, code.operands[2])

    def execute(block, mask):
        active_warps(block, mask, code)
        write(block, np.repeat(functions[mode, own](read(block).reshape(-1, WARP)), WARP), mask)

    return execute


@instruction("elect")
def elect(code: Code) -> Execute:
    """elect.sync d|p, members: d is the lane elected, p is true in it."""
    code.accept("sync")
    leader, chosen = (code.writer(item, kind) for item, kind in zip(
        code.operands[0].items, (TYPES["b32"], TYPES["pred"]), strict=True))  # fmt: skip
    whole_warps(code, code.operands[1])

    def execute(block, mask):
        active_warps(block, mask, code)
        leader(block, np.zeros(block.threads, np.uint32), mask)
        chosen(block, block.every_thread % WARP == 0, mask)

    return execute


@instruction("bar")
def bar_warp_sync(code: Code) -> Execute:
    code.accept("warp", "sync")
    whole_warps(code, code.operands[0])
    return lambda block, mask: block.clock.group_barrier(active_warps(block, mask, code))
