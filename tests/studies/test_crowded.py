"""`crowded`: identical code is never told apart, whatever runs beside it; far apart, it is while there are cores."""

from __future__ import annotations

import math

import pytest

from tests.studies.crowded import line, measure, simulate

pytestmark = pytest.mark.studies


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("count", [0, 1, 2, 8])
def test_a_scheduler_that_favours_one_side_leads_to_no_verdict(count: int, threads: int) -> None:
    found = list(simulate(count, 12, threads))
    assert not any(outcome.wrong for outcome in found)
    assert any(abs(math.log(outcome.ratio.estimate)) > 0.3 for outcome in found) == (count > 0)  # a wrong one was near
    assert all((outcome.reason is not None) == (count > 0) for outcome in found)
    assert f"wrong 0 of {len(found)}" in line(count, threads, found)


def test_identical_code_is_not_told_apart() -> None:
    """Without loops, which would disturb what other tests measure."""
    (found,) = measure(0, 1, 1, 0.5, "64x96")
    assert not found.wrong
    assert found.ratio.estimate > 0
