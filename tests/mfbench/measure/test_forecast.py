"""Forecasts: a step's time in earlier cases predicts it in larger ones."""

from __future__ import annotations

import pytest

from mfbench.measure.forecast import Forecast


class Steps:
    """A forecast whose clock the test sets, and what it reported."""

    def __init__(self) -> None:
        self.now = 0.0
        self.reports: list[str] = []
        self.forecast = Forecast(lambda: self.now)

    def take(self, name: str, work: float, seconds: float, fails: bool = False) -> str:
        with self.forecast.step(name, work, self.reports.append):
            self.now += seconds
            if fails:
                raise ValueError("no")
        return self.reports[-1]


def test_the_first_case_has_no_forecast_and_the_next_has() -> None:
    steps = Steps()
    assert steps.take("oracle", 100.0, 3.0) == "oracle"
    assert steps.take("oracle", 400.0, 10.0) == "oracle, about 12 s"
    assert steps.take("gate fused", 400.0, 10.0) == "gate fused"


def test_the_least_rate_counts_since_small_cases_are_overhead() -> None:
    steps = Steps()
    for work, seconds in ((1.0, 1.0), (1000.0, 2.0), (1.0, 1.0)):
        steps.take("oracle", work, seconds)
    assert steps.forecast.seconds("oracle", 10_000.0) == pytest.approx(20.0)
    assert steps.take("oracle", 100.0, 0.2) == "oracle"  # less than a second


def test_a_step_that_fails_teaches_nothing() -> None:
    steps = Steps()
    with pytest.raises(ValueError, match="no"):
        steps.take("gate fused", 100.0, 0.001, fails=True)
    assert steps.forecast.seconds("gate fused", 100.0) is None
