"""The installed version of Triton, for what its older versions cannot do."""

from __future__ import annotations

import functools
import re
from importlib.metadata import PackageNotFoundError, version

# Triton 3.6 with NumPy 2.4 interprets no loop over a scalar, and fails to compile float64 products for matrix units;
# 3.9 does both, 3.8 still fails to compile. 3.7 was not tried, and counts as old.
OLD = (3, 9)
FLOAT64_UNITS = ("sm_80", "sm_90")  # targets with matrix units for float64
ORDERED = (3, 7, 1)  # the first version that orders copies in flight before wgmma and tcgen05 read what they write


@functools.cache
def is_old() -> bool:
    """Return whether Triton is older than `OLD`."""
    return _is_before(OLD)


@functools.cache
def orders_copies() -> bool:
    """Return whether Triton puts `fence.proxy.async` between copies in flight and wgmma or tcgen05."""
    return not _is_before(ORDERED)


def _is_before(first: tuple[int, ...]) -> bool:
    try:
        found = re.findall(r"\d+", version("triton"))
    except PackageNotFoundError:
        return False
    return tuple(map(int, found[: len(first)])) < first
