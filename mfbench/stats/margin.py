"""The margin of a verdict: the relative difference up to which two times count as the same."""

from __future__ import annotations

import math

from mfbench.errors import UsageError

LIMIT = 1.0  # a factor of two; a larger margin is a percentage by mistake


def checked_margin(margin: float) -> float:
    """Return the margin.

    Raises:
        UsageError: it is no fraction from 0 to below 1.
    """
    is_number = isinstance(margin, int | float) and math.isfinite(margin)
    if is_number and 0 <= margin < LIMIT:
        return margin
    meant = f"; {margin:g} per cent is {margin / 100:g}" if is_number and LIMIT <= margin < 100 else ""
    message = f"expected a fraction from 0 to below 1, got {margin!r}{meant}"
    raise UsageError(message, code="bad-number", argument="margin")
