"""Figures over size: the fitted exponent."""

from __future__ import annotations

import pytest

from mfbench.report import curves


def test_the_exponent_is_that_of_the_power_law() -> None:
    slope, error = curves.exponent([10, 100, 1000], [1e-3, 3e-2, 0.9])
    assert slope == pytest.approx(1.477, abs=1e-3)
    assert error == pytest.approx(0, abs=1e-12)
