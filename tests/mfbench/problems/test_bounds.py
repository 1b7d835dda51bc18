"""Ranges of numbers: what they hold, and how they are described."""

from __future__ import annotations

import math

import pytest

from mfbench.problems.bounds import DENSITY, RANK, SECONDS, Bounds


@pytest.mark.parametrize(
    ("bounds", "inside", "outside"),
    [
        (RANK, [0, 1, 1 << 20], [-1, (1 << 20) + 1, 1.0, 2.5, "3", None]),
        (DENSITY, [0, 1, 0.5], [-1e-9, 1.0001, math.nan, math.inf, "0.5", None]),
        (SECONDS, [1e-9, 1, 1e300], [0, -1, math.inf, math.nan]),
        (Bounds(0, 1, below_high=True), [0, 0.999], [1, 1.0]),
    ],
)
def test_only_finite_numbers_in_the_range_are_held(bounds: Bounds, inside: list, outside: list) -> None:
    assert all(bounds.hold(value) for value in inside)
    assert not any(bounds.hold(value) for value in outside)


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        (RANK, "a whole number from 0 to 1048576"),
        (SECONDS, "a number above 0"),
        (Bounds(-math.inf), "a number"),
        (Bounds(0, 1, below_high=True), "a number from 0 to below 1"),
    ],
)
def test_a_range_is_described(bounds: Bounds, text: str) -> None:
    assert str(bounds) == text
