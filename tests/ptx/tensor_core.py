"""How NVIDIA's tensor cores add: exactly within a step, but with truncation before and after it.

A step adds a few products to c. All terms are aligned to the largest exponent among them and truncated to
`fraction_bits` below it, their sum is exact, and the result is truncated, not rounded, to float32. Numerics and step
lengths are those measured by Li et al., MMA-Sim (arXiv 2511.10909; github.com/microsoft/MMA-Sim at c785138).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .machine import MultiplyAdd
from .matrix import multiply_add

OPERAND_BITS = 10  # fraction bits of tf32 and f16; bf16 has fewer
RESULT_BITS = 23
LOWEST_EXPONENT = -126  # of float32, tf32 and bf16: subnormals share it, and zero has it in every type
LOWEST_OPERAND_EXPONENT = {"f16": -14}
CANONICAL_NAN = np.array(0x7FFFFFFF, np.uint32).view(np.float32)


@dataclass(frozen=True)
class TensorCore:
    """The addition of one generation; calls have the signature of `matrix.multiply_add`."""

    fraction_bits: int  # kept of a term, below the largest exponent of its step
    terms: dict[str, int]  # products of one step, by the operands' type

    def __call__(self, a: np.ndarray, b: np.ndarray, c: np.ndarray, kind: str) -> np.ndarray:
        """Return A B + C: shapes and `kind` as for `matrix.multiply_add`, which computes float64."""
        if kind == "f64":
            return multiply_add(a, b, c, kind)
        length = self.terms[kind]
        for start in range(0, a.shape[-1], length):
            step = slice(start, start + length)
            c = self._step(a[..., step], b[..., step, :], c, LOWEST_OPERAND_EXPONENT.get(kind, LOWEST_EXPONENT))
        return c

    def _step(self, a: np.ndarray, b: np.ndarray, c: np.ndarray, lowest: int) -> np.ndarray:
        """Add the products of one step. Integers are held in float64, exactly: all are below 2**53."""
        with np.errstate(all="ignore"):
            special = a.astype(np.float64) @ b.astype(np.float64) + c
            nonfinite = np.where(np.isnan(special), CANONICAL_NAN, special.astype(np.float32))
        if not np.isfinite(special).all():
            a, b, c = (np.where(np.isfinite(operand), operand, 0) for operand in (a, b, c))
        left, left_exponent = _significand(a, OPERAND_BITS, lowest)
        right, right_exponent = _significand(b, OPERAND_BITS, lowest)
        start, start_exponent = _significand(c, RESULT_BITS, LOWEST_EXPONENT)
        products = left[..., :, :, None] * right[..., None, :, :]  # [..., rows, depth, columns]
        exponents = left_exponent[..., :, :, None] + right_exponent[..., None, :, :]
        largest = np.maximum(exponents.max(-2), start_exponent)
        shifts = exponents - largest[..., None, :] + (self.fraction_bits - 2 * OPERAND_BITS)
        total = np.trunc(np.ldexp(products, shifts)).sum(-2)
        total += np.trunc(np.ldexp(start, start_exponent - largest + (self.fraction_bits - RESULT_BITS)))
        result = _truncated(np.ldexp(total, largest - self.fraction_bits))
        return np.where(np.isfinite(special), result, nonfinite)


def _significand(value: np.ndarray, bits: int, lowest: int) -> tuple[np.ndarray, np.ndarray]:
    """Return integers and exponents with value = integer * 2**(exponent - bits)."""
    value = value.astype(np.float64)
    exponent = np.where(value == 0, LOWEST_EXPONENT, np.maximum(np.frexp(value)[1] - 1, lowest))
    return np.ldexp(value, bits - exponent), exponent


def _truncated(value: np.ndarray) -> np.ndarray:
    """Return float64 as float32, truncated toward zero; subnormals are kept, and what is too large is infinite."""
    unit = np.maximum(np.frexp(value)[1] - 1, LOWEST_EXPONENT) - RESULT_BITS
    with np.errstate(over="ignore"):
        return np.ldexp(np.trunc(np.ldexp(value, -unit)), unit).astype(np.float32)


_HALF_STEPS = TensorCore(24, {"tf32": 4, "bf16": 8, "f16": 8})  # an instruction of the largest depth is two steps
_WHOLE_STEPS = TensorCore(25, {"tf32": 8, "bf16": 16, "f16": 16})
TENSOR_CORES: dict[str, MultiplyAdd] = {
    "sm_80": _HALF_STEPS,
    "sm_86": _HALF_STEPS,
    "sm_89": _HALF_STEPS,
    "sm_90": _WHOLE_STEPS,
    "sm_100": _WHOLE_STEPS,
    "sm_120": _WHOLE_STEPS,
}
