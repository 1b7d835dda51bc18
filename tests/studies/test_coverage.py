"""`coverage`: intervals of simulated timings cover the true ratio, and throttled samples are found."""

from __future__ import annotations

import pytest

from tests.studies.coverage import KINDS, simulate

pytestmark = pytest.mark.studies
TIMINGS = 40


@pytest.mark.parametrize("name", KINDS)
def test_intervals_cover_and_labels_are_right(name: str) -> None:
    seen = simulate(KINDS[name], TIMINGS, first_seed=1)
    assert seen.timings == TIMINGS
    assert seen.covered >= 0.8 * TIMINGS  # 95 % nominal: below 32 of 40 with probability 3e-4
    assert 0 < seen.half_width < 0.1
    assert seen.falsely_cold == 0
    assert (seen.labelled_cold > 0) == KINDS[name].l2_known
    assert seen.found >= 0.9 * seen.throttled
    assert (seen.throttled > 0) == (KINDS[name].nature.throttling > 0)
