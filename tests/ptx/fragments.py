"""Fragments: which element of a matrix each register of a warp holds, for mma.sync and for the rows of a wgmma.

With lane = 4 g + t and the numbers of one register counted by h: A holds row g + 8 i, column width * t + h +
4 width * j in register i + rows / 8 * j; B the transpose of that with one block of columns; C and D hold row g + 8 i,
column 8 j + 2 t + p in register p + 2 i + rows / 4 * j. `width` is the count of numbers in a register.
"""

from __future__ import annotations

import numpy as np

from .races import WARP


def unpack_a(registers: np.ndarray, rows: int, width: int) -> np.ndarray:
    """Return A, [warps, rows, depth], from its registers, [registers, threads * width]."""
    warps = registers.shape[1] // (WARP * width)
    parts = registers.reshape(-1, rows // 8, warps, 8, 4, width)  # [j, i, warps, g, t, h]
    return parts.transpose(2, 1, 3, 0, 4, 5).reshape(warps, rows, -1)


def unpack_b(registers: np.ndarray, width: int) -> np.ndarray:
    """Return B, [warps, depth, 8], from its registers, [registers, threads * width]."""
    warps = registers.shape[1] // (WARP * width)
    parts = registers.reshape(-1, warps, 8, 4, width)  # [j, warps, g, t, h]
    return parts.transpose(1, 0, 3, 4, 2).reshape(warps, -1, 8)


def unpack_c(registers: np.ndarray, rows: int) -> np.ndarray:
    """Return C or D, [warps, rows, columns], from its registers, [registers, threads]."""
    warps = registers.shape[1] // WARP
    parts = registers.reshape(-1, rows // 8, 2, warps, 8, 4)  # [j, i, p, warps, g, t]
    return parts.transpose(3, 1, 4, 0, 5, 2).reshape(warps, rows, -1)


def pack_c(matrix: np.ndarray) -> np.ndarray:
    """Return the registers of D, [registers, threads]; the inverse of `unpack_c`."""
    warps, rows, columns = matrix.shape
    parts = matrix.reshape(warps, rows // 8, 8, columns // 8, 4, 2)  # [warps, i, g, j, t, p]
    return np.ascontiguousarray(parts.transpose(3, 1, 5, 0, 2, 4)).reshape(-1, warps * WARP)
