"""Quantiles, and what is left of intervals without SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mfbench.stats import intervals, sample_size, student


def test_quantiles_are_those_of_tables() -> None:
    assert student.quantile(4, 0.975) == pytest.approx(2.7764, abs=1e-4)
    assert student.quantile(30, 0.995) == pytest.approx(2.7500, abs=1e-4)


def test_without_scipy_estimates_stay_and_nothing_is_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    base, new = (scale * np.exp(np.random.default_rng(1).normal(0, 0.01, 60)) for scale in (2.0, 1.0))
    bounded = intervals.ratio_interval(base, new)
    monkeypatch.setattr(student, "AVAILABLE", False)
    ratio = intervals.ratio_interval(base, new)
    assert ratio.estimate == bounded.estimate
    assert (ratio.low, ratio.high) == (0, math.inf)
    assert intervals.verdict(ratio, 0.02) == "inconclusive"
    assert sample_size.growth(intervals.ratio_location(base, new), 0.01, 0.95) == math.inf
