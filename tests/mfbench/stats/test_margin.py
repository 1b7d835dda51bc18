"""Margins: fractions from 0 to below 1, and a hint where a percentage was meant."""

from __future__ import annotations

import math

import pytest

from mfbench.errors import UsageError
from mfbench.stats.margin import checked_margin


@pytest.mark.parametrize("margin", [0, 0.0, 0.02, 0.999])
def test_fractions_are_margins(margin: float) -> None:
    assert checked_margin(margin) == margin


@pytest.mark.parametrize(
    ("margin", "hint"),
    [(5, "; 5 per cent is 0.05"), (1, "; 1 per cent is 0.01"), (-0.1, ""), (100, ""), (math.nan, ""), (math.inf, ""),
     ("0.02", ""), (None, "")],
)  # fmt: skip
def test_anything_else_is_refused(margin, hint: str) -> None:
    with pytest.raises(UsageError) as raised:
        checked_margin(margin)
    assert (raised.value.code, raised.value.argument) == ("bad-number", "margin")
    assert raised.value.message == f"expected a fraction from 0 to below 1, got {margin!r}{hint}"
