"""Check many entries with one number: their sum with random signs, drawn after the entries exist."""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np
import numpy.typing as npt

PERIOD = 4091  # the signs repeat after this many entries; a prime, so that rows of a matrix get different ones
BITS = (PERIOD + 7) // 8  # random bytes that the signs take


def new_bits() -> bytes:
    """Return random bytes for `signs`."""
    return secrets.token_bytes(BITS)


def signs(bits: bytes) -> npt.NDArray[np.float64]:
    """Return the signs that the bytes encode, 1 or -1, shape (PERIOD,)."""
    return np.where(np.unpackbits(np.frombuffer(bits, np.uint8))[:PERIOD], -1.0, 1.0)


def folded(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the sums over every PERIOD-th entry, (PERIOD,). Their dot product with the signs is the projection."""
    flat = values.reshape(-1)
    whole = flat.size // PERIOD * PERIOD
    sums: npt.NDArray[np.float64] = flat[:whole].reshape(-1, PERIOD).sum(axis=0, dtype=np.float64)
    sums[: flat.size - whole] += flat[whole:]
    return sums


def project(values: npt.NDArray[Any], signs: npt.NDArray[np.float64]) -> float:
    """Return the sum of the entries, each multiplied by its sign."""
    return float(folded(values) @ signs)
