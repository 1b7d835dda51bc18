"""cvt: between number types, with the roundings that compiled kernels use."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .program import Code, Execute, instruction
from .types import TYPES

TF32_DROPPED = 13  # low bits of a float32 that tf32 does not have
ROUND_TO_INTEGER = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}


def tf32_nearest_away(value: np.ndarray) -> np.ndarray:
    """float32 -> the nearest tf32, ties away from zero."""
    bits = value.view(np.uint32) + np.uint32(1 << TF32_DROPPED - 1)
    return np.where(np.isfinite(value), tf32_truncated(bits.view(np.float32)), value)


def tf32_nearest_even(value: np.ndarray) -> np.ndarray:
    bits = value.view(np.uint32)
    bits = bits + (np.uint32((1 << TF32_DROPPED - 1) - 1) + (bits >> TF32_DROPPED & 1))
    return np.where(np.isfinite(value), tf32_truncated(bits.view(np.float32)), value)


def tf32_truncated(value: np.ndarray) -> np.ndarray:
    """What a tensor core reads of a float32."""
    return (value.view(np.uint32) & np.uint32(-1 << TF32_DROPPED & 0xFFFFFFFF)).view(np.float32)


def to_integer(rounding: Callable[[np.ndarray], np.ndarray], dtype: np.dtype) -> Callable[[np.ndarray], np.ndarray]:
    """Saturating; NaN gives 0."""
    limits = np.iinfo(dtype)

    def convert(value: np.ndarray) -> np.ndarray:
        rounded = rounding(value.astype(np.float64))
        inside = (rounded > float(limits.min) - 1) & (rounded < float(limits.max) + 1)
        clamped = np.where(rounded < 0, limits.min, limits.max).astype(dtype)
        return np.where(np.isnan(rounded), 0, np.where(inside, np.where(inside, rounded, 0).astype(dtype), clamped))

    return convert


@instruction("cvt")
def cvt(code: Code) -> Execute:
    *modifiers, to, source = code.modifiers
    if to == "tf32":
        convert = {("rna",): tf32_nearest_away, ("rn",): tf32_nearest_even}.get(tuple(modifiers))
        return _unary(code, "f32", "f32", convert)
    if len(code.operands) == 3:  # d = {a, b}, a in the upper half
        return _pack(code, to, source, modifiers)
    integer = code.type(to).dtype.kind in "iub", code.type(source).dtype.kind in "iub"
    convert = {
        (True, True): _plain if not modifiers else None,
        (False, True): _plain if modifiers == ["rn"] else None,
        (True, False): to_integer(ROUND_TO_INTEGER[modifiers[0]], code.type(to).dtype)
        if len(modifiers) == 1 and modifiers[0] in ROUND_TO_INTEGER
        else None,
        (False, False): _float_rounding(modifiers),
    }[integer]
    return _unary(code, to, source, convert)


def _plain(value: np.ndarray) -> np.ndarray:
    return value


def _float_rounding(modifiers: list[str]) -> Callable[[np.ndarray], np.ndarray] | None:
    if modifiers in ([], ["rn"]):
        return _plain
    return ROUND_TO_INTEGER.get(modifiers[0]) if len(modifiers) == 1 else None


def _unary(code: Code, to: str, source: str, convert: Callable[[np.ndarray], np.ndarray] | None) -> Execute:
    if convert is None:
        raise code.unsupported(".".join([code.opcode, *code.modifiers]))
    read, write = code.reader(code.operands[1], code.type(source)), code.writer(code.operands[0], code.type(to))
    return lambda block, mask: write(block, convert(read(block)), mask)


def _pack(code: Code, to: str, source: str, modifiers: list[str]) -> Execute:
    if modifiers != ["rn"] or to not in ("f16x2", "bf16x2") or source != "f32":
        raise code.unsupported(".".join([code.opcode, *code.modifiers]))
    half = TYPES[to.removesuffix("x2")]
    high, low = (code.reader(operand, TYPES["f32"]) for operand in code.operands[1:])
    write = code.writer(code.operands[0], TYPES["b32"])

    def execute(block, mask):
        halves = [half.encode(read(block), 16) for read in (low, high)]
        write(block, np.stack(halves, axis=1).view(np.uint32).ravel(), mask)

    return execute
