"""Arithmetic, logic and comparison: one line of a table an instruction.

A signature such as `w=ttw` names the types of result and sources: `t` the instruction's own, `w` twice as wide, `u`
u32, `p` a predicate. Functions get decoded arrays, one element a thread (two for packed types).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .program import Code, Execute, instruction
from .types import TYPES, Type, twice_as_wide

IGNORED = ("rn", "approx", "full", "sync")  # NumPy's own rounding, or better than hardware's approximation


class Operation(NamedTuple):
    signature: str
    function: Callable[..., np.ndarray]


def fused_multiply_add(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Through float64, which holds a float32 product exactly; float64 itself is rounded twice."""
    return (a.astype(np.float64) * b + c).astype(a.dtype)


def divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Truncates towards zero for integers; division by zero gives all ones."""
    if a.dtype.kind == "f":
        return a / b
    quotient = np.where(b == 0, -1 if a.dtype.kind == "i" else np.iinfo(a.dtype).max, 0).astype(a.dtype)
    divisor = np.where(b == 0, 1, b).astype(a.dtype)
    exact = a // divisor
    exact += ((a % divisor != 0) & ((a < 0) != (b < 0))).astype(a.dtype)
    return np.where(b == 0, quotient, exact)


def remainder(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where(b == 0, a, a - divide(a, b) * b)


def multiply_high(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.dtype.itemsize == 8:
        return np.array([int(x) * int(y) >> 64 for x, y in zip(a, b, strict=True)]).astype(a.dtype)
    wide = f"{a.dtype.kind}{2 * a.dtype.itemsize}"
    return (a.astype(wide) * b.astype(wide) >> 8 * a.dtype.itemsize).astype(a.dtype)


def multiply_wide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    wide = f"{a.dtype.kind}{2 * a.dtype.itemsize}"
    return a.astype(wide) * b.astype(wide)


def shift_left(a: np.ndarray, amount: np.ndarray) -> np.ndarray:
    bits = 8 * a.dtype.itemsize
    return np.where(amount < bits, a << np.minimum(amount, bits - 1).astype(a.dtype), 0)


def shift_right(a: np.ndarray, amount: np.ndarray) -> np.ndarray:
    """Arithmetic for signed types; amounts past the width clamp to it."""
    bits = 8 * a.dtype.itemsize
    shifted = a >> np.minimum(amount, bits - 1).astype(a.dtype)
    return shifted if a.dtype.kind == "i" else np.where(amount < bits, shifted, 0)


def funnel_shift(left: bool, wrap: bool) -> Callable[..., np.ndarray]:
    def shift(low: np.ndarray, high: np.ndarray, amount: np.ndarray) -> np.ndarray:
        n = (amount % 32 if wrap else np.minimum(amount, 32)).astype(np.uint64)
        both = high.astype(np.uint64) << np.uint64(32) | low
        return (both << n >> np.uint64(32) if left else both >> n).astype(np.uint32)

    return shift


def extract_bits(a: np.ndarray, position: np.ndarray, length: np.ndarray) -> np.ndarray:
    """bfe: sign-extended for signed types, zeros (or the sign) beyond the top."""
    bits = 8 * a.dtype.itemsize
    position, length = (np.minimum(x & 0xFF, bits).astype(np.int64) for x in (position, length))
    top = np.minimum(position + length, bits)
    field = shift_right(shift_left(a, bits - top), bits - np.minimum(length, top - position))
    sign = shift_right(a, np.full_like(position, bits)) if a.dtype.kind == "i" else 0
    return np.where(length == 0, 0, np.where(position >= bits, sign, field))


def insert_bits(field: np.ndarray, base: np.ndarray, position: np.ndarray, length: np.ndarray) -> np.ndarray:
    position, length = (np.minimum(x & 0xFF, 8 * base.dtype.itemsize) for x in (position, length))
    ones = shift_left(np.ones_like(base), length) - 1
    ones = np.where(length >= 8 * base.dtype.itemsize, ~np.zeros_like(base), ones).astype(base.dtype)
    hole = shift_left(ones, position)
    return base & ~hole | shift_left(field, position) & hole


def permute_bytes(a: np.ndarray, b: np.ndarray, selector: np.ndarray) -> np.ndarray:
    """prmt: each nibble of the selector picks one of eight bytes, or its sign spread over a byte."""
    source = np.stack([a, b], axis=1).view(np.uint8)  # [threads, 8]
    nibbles = selector[:, None] >> np.arange(0, 16, 4, dtype=np.uint32) & 0xF
    picked = np.take_along_axis(source, (nibbles & 7).astype(np.intp), axis=1)
    spread = np.where(picked & 0x80, 0xFF, 0)
    return np.where(nibbles & 8, spread, picked).astype(np.uint8).view(np.uint32).ravel()


def lookup(a: np.ndarray, b: np.ndarray, c: np.ndarray, table: np.ndarray) -> np.ndarray:
    """lop3: bit (4a + 2b + c) of the table, for each bit."""
    result = np.zeros_like(a)
    for row in range(8):
        if int(table[0]) >> row & 1:
            result |= (a if row & 4 else ~a) & (b if row & 2 else ~b) & (c if row & 1 else ~c)
    return result


def population_count(a: np.ndarray) -> np.ndarray:
    return np.unpackbits(a[:, None].view(np.uint8), axis=1).sum(axis=1)


def leading_zeros(a: np.ndarray) -> np.ndarray:
    bits = np.unpackbits(a.astype(a.dtype.newbyteorder(">"))[:, None].view(np.uint8), axis=1)
    return np.where(bits.any(axis=1), bits.argmax(axis=1), bits.shape[1])


def reverse_bits(a: np.ndarray) -> np.ndarray:
    bits = np.unpackbits(a[:, None].view(np.uint8), axis=1, bitorder="little")
    return np.packbits(bits, axis=1).view(a.dtype.newbyteorder(">")).ravel().astype(a.dtype)


def select(a: np.ndarray, b: np.ndarray, predicate: np.ndarray) -> np.ndarray:
    return np.where(predicate, a, b)


OPERATIONS = {
    "add": Operation("t=tt", np.add),
    "sub": Operation("t=tt", np.subtract),
    "mul": Operation("t=tt", np.multiply),
    "mul.lo": Operation("t=tt", np.multiply),
    "mul.hi": Operation("t=tt", multiply_high),
    "mul.wide": Operation("w=tt", multiply_wide),
    "mad.lo": Operation("t=ttt", lambda a, b, c: a * b + c),
    "mad.hi": Operation("t=ttt", lambda a, b, c: multiply_high(a, b) + c),
    "mad.wide": Operation("w=ttw", lambda a, b, c: multiply_wide(a, b) + c),
    "fma": Operation("t=ttt", fused_multiply_add),
    "div": Operation("t=tt", divide),
    "rem": Operation("t=tt", remainder),
    "min": Operation("t=tt", np.fmin),
    "max": Operation("t=tt", np.fmax),
    "min.relu": Operation("t=tt", lambda a, b: np.maximum(np.fmin(a, b), 0)),
    "min.NaN": Operation("t=tt", np.minimum),
    "max.NaN": Operation("t=tt", np.maximum),
    "neg": Operation("t=t", np.negative),
    "abs": Operation("t=t", np.abs),
    "sqrt": Operation("t=t", np.sqrt),
    "rsqrt": Operation("t=t", lambda a: 1 / np.sqrt(a)),
    "rcp": Operation("t=t", lambda a: 1 / a),
    "ex2": Operation("t=t", np.exp2),
    "lg2": Operation("t=t", np.log2),
    "and": Operation("t=tt", np.bitwise_and),
    "or": Operation("t=tt", np.bitwise_or),
    "xor": Operation("t=tt", np.bitwise_xor),
    "not": Operation("t=t", np.invert),
    "shl": Operation("t=tu", shift_left),
    "shr": Operation("t=tu", shift_right),
    "shf.l.wrap": Operation("t=ttu", funnel_shift(left=True, wrap=True)),
    "shf.r.wrap": Operation("t=ttu", funnel_shift(left=False, wrap=True)),
    "shf.l.clamp": Operation("t=ttu", funnel_shift(left=True, wrap=False)),
    "shf.r.clamp": Operation("t=ttu", funnel_shift(left=False, wrap=False)),
    "bfe": Operation("t=tuu", extract_bits),
    "bfi": Operation("t=ttuu", insert_bits),
    "prmt": Operation("t=ttu", permute_bytes),
    "lop3": Operation("t=tttu", lookup),
    "popc": Operation("u=t", population_count),
    "clz": Operation("u=t", leading_zeros),
    "brev": Operation("t=t", reverse_bits),
    "selp": Operation("t=ttp", select),
    "mov": Operation("t=t", lambda a: a),
}


def _types(code: Code, signature: str, own: str) -> list[Type]:
    kinds = {"u": TYPES["u32"], "p": TYPES["pred"], "t": code.type(own)}
    return [twice_as_wide(own) if letter == "w" else kinds[letter] for letter in signature if letter != "="]


@instruction(*{name.split(".")[0] for name in OPERATIONS})
def table(code: Code) -> Execute:
    *modifiers, own = code.modifiers
    name = ".".join([code.opcode, *(m for m in modifiers if m not in IGNORED)])
    if name not in OPERATIONS:
        raise code.unsupported(name)
    signature, function = OPERATIONS[name]
    result, *sources = _types(code, signature, own)
    if len(code.operands) != 1 + len(sources):
        raise code.unsupported(f"{name} with {len(code.operands)} operands")
    reads = [code.reader(operand, kind) for operand, kind in zip(code.operands[1:], sources, strict=True)]
    write = code.writer(code.operands[0], result)
    return lambda block, mask: write(block, function(*[read(block) for read in reads]), mask)


def _unordered(compare: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    return lambda a, b: compare(a, b) | np.isnan(a) | np.isnan(b)


COMPARISONS = {
    "eq": np.equal,
    "ne": lambda a, b: (a != b) & (a == a) & (b == b),
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "num": lambda a, b: (a == a) & (b == b),
    "nan": lambda a, b: (a != a) | (b != b),
}
COMPARISONS |= {f"{name}u": _unordered(COMPARISONS[name]) for name in ("eq", "ne", "lt", "le", "gt", "ge")}
COMPARISONS |= {"lo": np.less, "ls": np.less_equal, "hi": np.greater, "hs": np.greater_equal}
COMBINATIONS = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}


@instruction("setp")
def setp(code: Code) -> Execute:
    """setp.CMP[.BOOL].TYPE p[|q], a, b[, c]: p = (a CMP b) BOOL c, q = !(a CMP b) BOOL c.

    Of packed types, p compares the lower halves and q the upper ones.
    """
    comparison, *combination, own = code.modifiers
    if comparison not in COMPARISONS or (combination and combination[0] not in COMBINATIONS):
        raise code.unsupported(".".join([code.opcode, *code.modifiers]))
    compare, kind, predicate = COMPARISONS[comparison], code.type(own), TYPES["pred"]
    first, second = (code.reader(operand, kind) for operand in code.operands[1:3])
    third = code.reader(code.operands[3], predicate) if combination else None
    results = getattr(code.operands[0], "items", (code.operands[0],))
    writes = [code.writer(operand, predicate) for operand in results]

    def execute(block, mask):
        outcome = compare(first(block), second(block))
        outcomes = (outcome[::2], outcome[1::2]) if own.endswith("x2") else (outcome, ~outcome)
        for write, value in zip(writes, outcomes, strict=False):
            write(block, COMBINATIONS[combination[0]](value, third(block)) if third else value, mask)

    return execute
