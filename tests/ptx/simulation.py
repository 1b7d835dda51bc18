"""The pass's arithmetic in NumPy: the products of a program in the kernel's order, on a model of the matrix unit.

Executing PTX takes minutes for a few thousand ratings; this takes a minute for 65,536 items per program. That both give
the same bits is checked on small problems, for complete tiles of float32 ratings.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kernels.gpu.config import Config

from .convert import tf32_truncated
from .machine import MultiplyAdd

Halves = tuple[np.ndarray, ...]  # a whole operand, or its high and its low half


class Factors(NamedTuple):
    """Arguments of a step without a mask, float32."""

    P: np.ndarray  # (m, k)
    Q: np.ndarray  # (n, k)
    bu: np.ndarray  # (m,), the global bias included
    bi: np.ndarray  # (n,)
    R: np.ndarray  # (m, n)


class Sums(NamedTuple):
    """What the pass sums, before regularisation and doubling."""

    squares: float
    dP: np.ndarray
    dQ: np.ndarray
    dbu: np.ndarray
    dbi: np.ndarray


def simulate(problem: Factors, config: Config, multiply_add: MultiplyAdd) -> Sums:
    """Return the sums of the fused or chunked pass of one program for all items, for a multiple of BM users.

    Blocks of users are added to dQ one after another; the bias gradients are sums of E in NumPy where the factors have
    no columns for them.
    """
    unit = _Unit(config, multiply_add)
    (m, rank), n = problem.P.shape, problem.Q.shape[0]
    A, B = np.zeros((m, config.BK), np.float32), np.zeros((n, config.BK), np.float32)
    A[:, :rank], B[:, :rank] = problem.P, problem.Q
    if not config.sums:
        A[:, rank + 1], B[:, rank] = 1, 1
    factors_a, factors_b = unit.factors(A), unit.factors(B)
    E = problem.bu[:, None] + problem.bi[None, :]
    for start in range(0, config.BK, unit.depth):
        part = slice(start, start + unit.depth)
        E = unit.predict(E, _columns(factors_a, part), _columns(factors_b, part))
    E -= problem.R
    errors = unit.operand(E)
    dA = unit.over_items(errors, factors_b)
    dB = np.zeros((n, config.BK), np.float32)
    for start in range(0, m, config.BM):
        block = slice(start, start + config.BM)
        dB += unit.product(_transposed(_rows(errors, block)), _rows(factors_a, block))
    bias_gradients = (E.sum(1), E.sum(0)) if config.sums else (dA[:, rank], dB[:, rank + 1])
    return Sums(float(np.square(E, dtype=np.float64).sum()), dA[:, :rank], dB[:, :rank], *bias_gradients)


class _Unit:
    """The products of one build."""

    def __init__(self, config: Config, multiply_add: MultiplyAdd) -> None:
        arithmetic = config.arithmetic
        self.config, self.multiply_add = config, multiply_add
        self.kind = "tf32" if arithmetic.input_precision == "tf32" else "bf16"
        self.split, self.rounded = arithmetic.split, arithmetic.rounded
        self.depth = config.chunk or config.depth or config.BK

    def factors(self, x: np.ndarray) -> Halves:
        return (_rounded(x, self.rounded),) if self.rounded else self.operand(x)

    def operand(self, x: np.ndarray) -> Halves:
        """Return x as the unit reads it."""
        if not self.split:
            return (tf32_truncated(x),)
        high = _rounded(x, self.split)
        low = x - high
        return high, tf32_truncated(low) if self.kind == "tf32" else _bfloat16(low)

    def product(self, x: Halves, y: Halves, total: np.ndarray | None = None) -> np.ndarray:
        """Return total + x y, summed by the unit: of halves, the smaller products first."""
        if total is None:
            total = np.zeros((*x[0].shape[:-1], y[0].shape[-1]), np.float32)
        for i, j in ((1, 0), (0, 1), (0, 0)) if self.split else ((0, 0),):
            total = self.multiply_add(x[i], y[j], total, self.kind)
        return total

    def predict(self, E: np.ndarray, A: Halves, B: Halves) -> np.ndarray:
        """Return E + A B', in the unit unless that were too inaccurate."""
        if self.split and self.kind == "tf32":
            return E + self.product(A, _transposed(B))
        return self.product(A, _transposed(B), E)

    def over_items(self, errors: Halves, B: Halves) -> np.ndarray:
        """Return E B: each tile's product by the unit, and their sum in float32."""
        BN = self.config.BN
        m, n = errors[0].shape
        order = np.arange(n)
        if not self.split and not self.config.chunk:  # `fragment_order`
            order = order.reshape(-1, 4, 2).swapaxes(1, 2).ravel()
        tiles_of_e = tuple(x[:, order].reshape(m, n // BN, BN).swapaxes(0, 1) for x in errors)
        tiles_of_b = tuple(x[order].reshape(n // BN, BN, -1) for x in B)
        return np.cumsum(self.product(tiles_of_e, tiles_of_b), 0, dtype=np.float32)[-1]


def _rounded(x: np.ndarray, bits: int) -> np.ndarray:
    """Return float32 without its lowest mantissa bits, rounded to nearest, ties away from zero."""
    return (x.view(np.int32) + (1 << (bits - 1)) & -1 << bits).astype(np.int32).view(np.float32)


def _bfloat16(x: np.ndarray) -> np.ndarray:
    """Return float32 rounded to bfloat16, ties to even."""
    bits = x.view(np.uint32).astype(np.int64)
    return (bits + 0x7FFF + (bits >> 16 & 1) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def _columns(x: Halves, part: slice) -> Halves:
    return tuple(half[..., part] for half in x)


def _rows(x: Halves, part: slice) -> Halves:
    return tuple(half[part] for half in x)


def _transposed(x: Halves) -> Halves:
    return tuple(half.swapaxes(-1, -2) for half in x)
