"""A number that says much about many: entries summed with random signs, which nobody knows before the entries exist."""

from __future__ import annotations

import secrets

import numpy as np
import numpy.typing as npt

PERIOD = 4091  # signs repeat after it; a prime, so that rows of a matrix have other ones
BITS = (PERIOD + 7) // 8


def new_bits() -> bytes:
    """Random ones, for `signs`."""
    return secrets.token_bytes(BITS)


def signs(bits: bytes) -> npt.NDArray[np.float64]:
    """[PERIOD], 1 or -1."""
    return np.where(np.unpackbits(np.frombuffer(bits, np.uint8))[:PERIOD], -1.0, 1.0)


def folded(values: npt.NDArray) -> npt.NDArray[np.float64]:
    """Sums over every PERIOD-th entry: [PERIOD]. Their product with signs is the projection."""
    flat = values.reshape(-1)
    whole = flat.size // PERIOD * PERIOD
    sums = flat[:whole].reshape(-1, PERIOD).sum(axis=0, dtype=np.float64)
    sums[: flat.size - whole] += flat[whole:]
    return sums


def project(values: npt.NDArray, signs: npt.NDArray[np.float64]) -> float:
    """The sum of the entries with the signs before them."""
    return float(folded(values) @ signs)
