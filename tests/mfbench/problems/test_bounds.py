"""Ranges of numbers."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mfbench.problems.bounds import DENSITY, MARGIN, SECONDS, THREADS, Bounds


@pytest.mark.parametrize(("bounds", "inside", "outside"), [
    (THREADS, (1, 1024), (0, 1025, 1.5, "1", None)),
    (DENSITY, (0, 0.5, 1), (-1e-9, 1.1, math.nan)),
    (MARGIN, (0, 1e9), (-0.1, math.inf)),
    (SECONDS, (1e-9, 300), (0, -1)),
    (Bounds(0, 1, below_high=True), (0, 0.999), (1, 1.5)),
])  # fmt: skip
def test_numbers_inside_and_outside(bounds: Bounds, inside: tuple, outside: tuple[Any, ...]) -> None:
    assert all(bounds.hold(value) for value in inside)
    assert not any(bounds.hold(value) for value in outside)


def test_ranges_in_words() -> None:
    assert str(THREADS) == "a whole number from 1 to 1024"
    assert str(SECONDS) == "a number above 0"
    assert str(Bounds(0, 1, below_high=True)) == "a number from 0 to below 1"
