"""Projections: signed sums that no single wrong entry leaves alone."""

from __future__ import annotations

import numpy as np
import pytest

from mfbench.correctness.audit.projection import PERIOD, folded, new_bits, project, signs


@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (PERIOD,), (7, PERIOD - 1), (2, 3, PERIOD)])
def test_a_projection_is_the_sum_with_repeated_signs(shape: tuple[int, ...]) -> None:
    values = np.asarray(np.random.default_rng(0).normal(size=shape))
    drawn = signs(new_bits())
    expected = values.reshape(-1) @ np.resize(drawn, values.size)
    assert project(values, drawn) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert folded(values).shape == (PERIOD,)


def test_signs_are_fair_and_new_each_time() -> None:
    one, other = signs(new_bits()), signs(new_bits())
    assert set(one) == {-1.0, 1.0}
    assert abs(one.sum()) < 6 * PERIOD**0.5
    assert not np.array_equal(one, other)
    bits = new_bits()
    assert np.array_equal(signs(bits), signs(bits))


@pytest.mark.parametrize("place", [0, 1, PERIOD - 1, PERIOD, 3 * PERIOD + 17])
def test_one_wrong_entry_always_shows(place: int) -> None:
    values = np.zeros(4 * PERIOD)
    values[place] = 0.5
    assert all(abs(project(values, signs(new_bits()))) == 0.5 for _ in range(10))


def test_two_errors_that_cancel_in_the_sum_show_in_half_of_the_projections() -> None:
    values = np.zeros(100)
    values[3], values[50] = 1.0, -1.0
    seen = sum(project(values, signs(new_bits())) != 0 for _ in range(400))
    assert 140 < seen < 260  # six standard deviations around 200


def test_half_precision_is_summed_in_double() -> None:
    values = np.full(40 * PERIOD, 2049, dtype=np.float32)
    assert project(values, np.ones(PERIOD)) == 2049.0 * values.size
