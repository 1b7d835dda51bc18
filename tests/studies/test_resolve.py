"""`resolve`: on a simulated machine, identical code is called the same, slower code slower, and none wrongly."""

from __future__ import annotations

import pytest

from mfbench.measure.planning import Goal
from mfbench.stats import intervals
from tests.mfbench.measure.devices.simulated import Nature
from tests.studies.resolve import EXPECTED, IDENTICAL, lines, simulate, summary

pytestmark = pytest.mark.studies
CASES = 20
NATURES = {"correlated": Nature(), "noisy": Nature(noise=0.02, spikes=0.05)}


@pytest.mark.parametrize("name", NATURES)
def test_verdicts_on_known_ratios(name: str) -> None:
    confidence = intervals.family_confidence(len(EXPECTED))
    found = simulate(NATURES[name], CASES, Goal(60.0, 0.02, confidence=confidence))
    right = {provider: sum(o.expected for o in found if o.provider == provider) for provider in EXPECTED}
    assert right[IDENTICAL] >= 18
    assert min(right.values()) >= 18
    assert not any(outcome.wrong for outcome in found)
    assert all(outcome.took_s <= 60.0 for outcome in found)
    assert sum(o.took_s for o in found) < 2 * sum(o.said_s for o in found)

    told = "\n".join([*lines(found), *summary(found)])
    assert told.count("identical") == CASES + 1
    assert f"identical  same   in {right[IDENTICAL]} of {CASES}" in told
    assert f"wrong      0 of {2 * CASES}" in told
