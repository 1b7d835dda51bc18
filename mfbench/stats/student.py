"""Student's t distribution, from SciPy. `gpu-check` runs without it, and its intervals are unbounded then."""

from __future__ import annotations

import math

try:
    from scipy.special import stdtrit  # importing scipy.stats takes a second
except ImportError:
    stdtrit = None

AVAILABLE = stdtrit is not None


def quantile(freedom: float, probability: float) -> float:
    """Return the quantile at this many degrees of freedom; infinite without SciPy."""
    return float(stdtrit(freedom, probability)) if AVAILABLE else math.inf
