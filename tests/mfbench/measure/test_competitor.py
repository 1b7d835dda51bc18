"""A provider in a case: the first failure is kept, and a result right before timing but not after it is stale."""

from __future__ import annotations

import pytest

from mfbench.correctness import gate
from mfbench.correctness.audit.expected import ExpectedOutputs
from mfbench.measure.competitor import Competitor, Draw
from mfbench.measure.rounds import ProviderTiming
from mfbench.problems.inputs import draw
from mfbench.problems.shared import SharedInputs
from mfbench.results.codes import Code, ProviderFailure
from tests.mfbench.measure.in_process import CASE, InProcess

INPUTS = draw(CASE)
SHARED = SharedInputs(INPUTS)
STANDARD = gate.standard(INPUTS)


@pytest.fixture
def competitor() -> Competitor:
    return Competitor("autograd", InProcess("autograd"), CASE, "cpu")


def test_each_draw_has_its_own_parameters_and_exact_outputs() -> None:
    one, other = (Draw.of(STANDARD, INPUTS, CASE) for _ in range(2))
    assert one.number != other.number
    assert float(one.standard.exact[0]) != float(other.standard.exact[0])
    assert one.standard.bounds == STANDARD.bounds


def test_an_honest_provider_passes_every_step(competitor: Competitor) -> None:
    competitor.gate(STANDARD, SHARED.location)
    assert all(check.ok for check in competitor.checks.values())
    timed_on, unseen = (Draw.of(STANDARD, INPUTS, CASE) for _ in range(2))
    competitor.begin_timing(timed_on, ExpectedOutputs.of(timed_on.standard))
    competitor.place()
    readings = [competitor.sample(20).seconds / 20 for _ in range(3)]
    timing = ProviderTiming(readings, 20, cold=False, gaps=False)
    competitor.check_clock(timing)
    competitor.gate_again(unseen, timing)
    assert competitor.failure is None


def test_the_first_failure_is_kept(competitor: Competitor) -> None:
    competitor.gate(STANDARD, SHARED.location)
    timed_on = Draw.of(STANDARD, INPUTS, CASE)
    competitor.begin_timing(timed_on, ExpectedOutputs.of(timed_on.standard))
    competitor.worker.fail_on = "place"
    with pytest.raises(ProviderFailure) as first:
        competitor.place()
    with pytest.raises(ProviderFailure):
        competitor.gate(Draw.of(STANDARD, INPUTS, CASE).standard, SHARED.location)
    assert competitor.failure is first.value


def test_a_stale_result_is_told_from_one_that_was_never_right(competitor: Competitor) -> None:
    competitor.gate(STANDARD, SHARED.location)
    unseen = Draw.of(STANDARD, INPUTS, CASE)
    other = Draw.of(STANDARD, INPUTS, CASE)
    with pytest.raises(ProviderFailure, match="after timing, on new parameters: ") as failure:
        competitor.gate_again(unseen._replace(standard=other.standard), ProviderTiming([1.0], 1, False, False))
    assert failure.value.code is Code.STALE_RESULT
    with pytest.raises(ProviderFailure) as failure:
        competitor.gate(other.standard, SHARED.location)
    assert failure.value.code is Code.OFF_BOUND


def test_a_dead_worker_is_not_asked_to_release(competitor: Competitor) -> None:
    competitor.worker.pid = None
    competitor.release()
    assert competitor.worker.asked == []
