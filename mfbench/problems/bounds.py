"""The ranges of the numbers that options, suite files and the Python interface accept, and the names of drawn data."""

from __future__ import annotations

import math
from typing import Any, NamedTuple


class Bounds(NamedTuple):
    """A range of finite numbers."""

    low: float
    high: float = math.inf
    above_low: bool = False  # the low end itself is excluded
    below_high: bool = False  # the high end itself is excluded
    whole: bool = False  # integers only

    def hold(self, value: Any) -> bool:
        """Return whether a value is a number in the range."""
        if not isinstance(value, int if self.whole else int | float) or not math.isfinite(value):
            return False
        above = value > self.low if self.above_low else value >= self.low
        return above and (value < self.high if self.below_high else value <= self.high)

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        form = "d" if self.whole else "g"
        low = "" if self.low == -math.inf else f" {'above' if self.above_low else 'from'} {self.low:{form}}"
        high = "" if self.high == math.inf else f" {'to below' if self.below_high else 'to'} {self.high:{form}}"
        return f"{kind}{low}{high}"


RANK = Bounds(0, 1 << 20, whole=True)
DENSITY = Bounds(0, 1)
SEED = Bounds(0, 2**63 - 1, whole=True)
THREADS = Bounds(1, 1024, whole=True)
PROCESSES = Bounds(1, 1024, whole=True)
SECONDS = Bounds(0, above_low=True)
FRACTION = Bounds(0, 1, above_low=True, below_high=True)
DRAWN = ("synthetic", "power-law", "blocks", "seed")  # data drawn at any size and density; all other data has its own
