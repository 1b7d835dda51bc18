"""A number that says much about many: entries summed with random signs, which nobody knows before the entries exist."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

PERIOD = 4099  # a prime: entries so far apart have the same sign, rows of a matrix do not


def folded(values: npt.NDArray) -> npt.NDArray[np.float64]:
    """Sums over every PERIOD-th entry: [PERIOD]. Their product with signs is the projection."""
    flat = values.reshape(-1)
    whole = flat.size // PERIOD * PERIOD
    sums = flat[:whole].reshape(-1, PERIOD).sum(axis=0, dtype=np.float64)
    sums[: flat.size - whole] += flat[whole:]
    return sums


def signs(seed: int) -> npt.NDArray[np.float64]:
    """[PERIOD], 1 or -1."""
    return np.random.default_rng(seed).choice([-1.0, 1.0], PERIOD)
