"""PTX types: how the bits in a register are read as numbers and written back.

A register is an array of unsigned integers over the block's threads (bool for predicates). It may be wider than the
type of the instruction that uses it: reading truncates, writing extends (by the sign for signed types).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

UNSIGNED = {1: np.bool_, 8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}


@dataclass(frozen=True)
class Type:
    bits: int  # of the whole value, both halves of a packed type
    dtype: np.dtype  # of the numbers that instructions compute with

    def decode(self, register: np.ndarray) -> np.ndarray:
        """Register -> numbers, [threads], or [2 * threads] for packed types."""
        return _narrow(register, self.bits).view(self.dtype)

    def encode(self, value: np.ndarray, width: int) -> np.ndarray:
        """Numbers -> the bits of a register of `width` bits, [threads]."""
        value = value.astype(self.dtype, copy=False)
        if width > self.bits and self.dtype.kind in "iu":
            value = value.astype(f"{self.dtype.kind}{width // 8}")
            return value.view(UNSIGNED[width])
        return _widen(value.view(UNSIGNED[self.bits]), width)


class BFloat16(Type):
    """Numbers are float32; a value is rounded to the nearest, ties to even, when written."""

    def decode(self, register: np.ndarray) -> np.ndarray:
        return bfloat16_numbers(_narrow(register, self.bits).view(np.uint16))

    def encode(self, value: np.ndarray, width: int) -> np.ndarray:
        halves = bfloat16_bits(value.astype(np.float32, copy=False))
        return _widen(halves.view(UNSIGNED[self.bits]), width)


def bfloat16_numbers(halves: np.ndarray) -> np.ndarray:
    """16 bits of bfloat16 -> float32."""
    return (halves.astype(np.uint32) << 16).view(np.float32)


def bfloat16_bits(value: np.ndarray) -> np.ndarray:
    """float32 -> the 16 bits of the nearest bfloat16, ties to even."""
    bits = value.view(np.uint32)
    rounded = (bits + (np.uint32(0x7FFF) + ((bits >> 16) & 1))) >> 16
    return np.where(np.isnan(value), np.uint32(0x7FFF), rounded).astype(np.uint16)


def _narrow(register: np.ndarray, bits: int) -> np.ndarray:
    wanted = UNSIGNED[bits]
    return register if register.dtype == wanted else register.astype(wanted)


_widen = _narrow

TYPES: dict[str, Type] = {"pred": Type(1, np.dtype(np.bool_))}
for _bits in (8, 16, 32, 64):
    TYPES[f"s{_bits}"] = Type(_bits, np.dtype(f"i{_bits // 8}"))
    TYPES[f"u{_bits}"] = TYPES[f"b{_bits}"] = Type(_bits, np.dtype(f"u{_bits // 8}"))
for _bits in (16, 32, 64):
    TYPES[f"f{_bits}"] = Type(_bits, np.dtype(f"f{_bits // 8}"))
TYPES["f16x2"] = Type(32, np.dtype(np.float16))
TYPES["f32x2"] = Type(64, np.dtype(np.float32))
TYPES["bf16"] = BFloat16(16, np.dtype(np.float32))
TYPES["bf16x2"] = BFloat16(32, np.dtype(np.float32))


def twice_as_wide(name: str) -> Type:
    """The result type of mul.wide and mad.wide."""
    return TYPES[f"{name[0]}{2 * int(name[1:])}"]
