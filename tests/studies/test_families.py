"""The study of verdicts' families, on fewer of them: each method keeps or breaks its promise as it is known to."""

from __future__ import annotations

import pytest

from tests.studies.families import METHODS, simulate


@pytest.mark.parametrize("shared", [0.0, 0.5])
def test_bonferroni_keeps_its_promise_and_costs_little_power_beside_holm(shared: float) -> None:
    found = simulate(12, shared, 4000, seed=2)
    assert set(found) == set(METHODS)
    for method in ("Bonferroni", "Šidák", "Holm"):
        assert found[method][1] <= 0.06
    for method in ("none", "Benjamini-Hochberg"):
        assert found[method][1] > 0.08
    assert found["Bonferroni"][0] <= found["Šidák"][0] <= found["Holm"][0] <= found["Bonferroni"][0] + 0.03
