"""Matrix descriptors: where in shared memory wgmma finds the elements of an operand.

The fields and layouts are those of the PTX ISA 8.x, "Asynchronous Warpgroup Level Matrix Shared Memory Layout", with
offsets between groups of 8 rows (stride) and between the parts of a row that one swizzled atom does not hold (leading).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

SWIZZLES = {0: 0, 1: 128, 2: 64, 3: 32}  # field -> bytes of a row of the swizzled atom; 0: none
PIECE = 16  # bytes of a row of a core matrix, which has 8 rows; swizzles permute these
FIELDS = {"start": (0, 14), "leading": (16, 14), "stride": (32, 14), "base": (49, 3), "swizzle": (62, 2)}
RESERVED = (1 << 64) - 1 - sum((1 << bits) - 1 << first for first, bits in FIELDS.values())


class Descriptor(NamedTuple):
    """Bytes: the first address of an operand, its leading and stride offsets, and a row of its swizzled atom."""

    start: int
    leading: int
    stride: int
    swizzle: int


def decode(bits: int) -> Descriptor:
    """Return the descriptor of a 64-bit register, as wgmma reads it.

    Raises:
        ValueError: a base offset other than 0, whose layout is not modelled, or reserved bits set.
    """
    field = {name: bits >> first & (1 << length) - 1 for name, (first, length) in FIELDS.items()}
    if field["base"]:
        raise ValueError(f"descriptor {bits:#x}: base offset {field['base']}, expected 0")
    if bits & RESERVED:
        raise ValueError(f"descriptor {bits:#x}: reserved bits are set")
    offsets = (field[name] << 4 for name in ("start", "leading", "stride"))
    return Descriptor(*offsets, SWIZZLES[field["swizzle"]])


SM100_SWIZZLES = {0: 0, 2: 128, 4: 64, 6: 32}
SM100_FIXED = 0b001 << 46, 0b111 << 46 | 0xFF << 53  # what these bits hold, and which they are
SM100_ABSOLUTE = 1 << 52  # the leading offset is an address


def decode_sm100(bits: int) -> Descriptor:
    """Return the descriptor of a 64-bit register, as tcgen05 reads it.

    Raises:
        ValueError: as `decode`, or a layout that is not modelled.
    """
    expected, where = SM100_FIXED
    if bits & where != expected or bits & SM100_ABSOLUTE or bits >> 61 not in SM100_SWIZZLES:
        raise ValueError(f"descriptor {bits:#x}: a layout that is not modelled")
    return decode(bits & (1 << 46) - 1 | bits & 0b111 << 49)._replace(swizzle=SM100_SWIZZLES[bits >> 61])


class Places(NamedTuple):
    """Where an operand lies in shared memory."""

    elements: np.ndarray  # [rows, depth] addresses
    pieces: np.ndarray  # addresses of the pieces of 16 bytes that these fill


@lru_cache(maxsize=4096)
def places(descriptor: Descriptor, rows: int, depth: int, size: int, depth_major: bool) -> Places:
    """Return where the elements of an operand lie.

    Args:
        descriptor: the operand's.
        rows: rows of A or columns of B.
        depth: extent of the dimension that the product sums over.
        size: bytes of an element.
        depth_major: elements along the depth are neighbours; else those along the rows are ("transposed").
    """
    start, leading, stride, swizzle = descriptor
    r, k = np.ogrid[:rows, :depth]
    core = PIECE // size
    if depth_major and swizzle:  # one atom holds a row's depth: the leading offset is not used
        address = start + r // 8 * stride + r % 8 * swizzle + k * size
    elif depth_major:
        address = start + r // 8 * stride + r % 8 * PIECE + k // core * leading + k % core * size
    elif swizzle:
        atom = swizzle // size
        address = start + r // atom * leading + r % atom * size + k // 8 * stride + k % 8 * swizzle
    else:
        address = start + r // core * stride + r % core * size + k // 8 * leading + k % 8 * PIECE
    elements = swizzled(address, swizzle)
    return Places(elements, np.unique(elements // PIECE) * PIECE)


def swizzled(address: np.ndarray, swizzle: int) -> np.ndarray:
    """Return where the hardware keeps the bytes of an address: bits 4 to 6 are XORed with those from bit 7 on."""
    return address ^ (address >> 3 & (swizzle - PIECE if swizzle else 0))
