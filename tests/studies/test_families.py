"""`families`: the corrections decide what their definitions say, and control what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from tests.studies.families import ALPHA, METHODS, decided, simulate

pytestmark = pytest.mark.studies
P = np.random.default_rng(1).random((200, 8)) ** 4


def test_benjamini_hochberg_is_scipys() -> None:
    expected = np.stack([stats.false_discovery_control(row) <= ALPHA for row in P])
    assert np.array_equal(decided(P, "Benjamini-Hochberg"), expected)


def test_holm_steps_down_until_the_first_that_fails() -> None:
    for row, found in zip(P, decided(P, "Holm"), strict=True):
        expected = np.zeros(8, dtype=bool)
        for rank, place in enumerate(np.argsort(row)):
            if row[place] > ALPHA / (8 - rank):
                break
            expected[place] = True
        assert np.array_equal(found, expected)


def test_each_correction_decides_at_least_as_much_as_the_stricter_one() -> None:
    for stricter, looser in (("Bonferroni", "Šidák"), ("Bonferroni", "Holm"), ("Holm", "none"), ("Šidák", "none")):
        assert not (decided(P, stricter) & ~decided(P, looser)).any()


@pytest.mark.parametrize("shared", [0.0, 0.5])
def test_family_wise_corrections_keep_wrong_families_rare(shared: float) -> None:
    found = simulate(12, shared, families=1000, seed=3)
    assert found.keys() == set(METHODS)
    for method in ("Bonferroni", "Šidák", "Holm"):
        assert found[method][1] <= ALPHA + 0.03  # four standard errors of 1000 families
    assert found["none"][1] > found["Bonferroni"][1]
