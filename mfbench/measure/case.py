"""Measure one case: gate every provider, time them in rounds, and gate them again on new parameters."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence

from mfbench import log
from mfbench.correctness import gate
from mfbench.correctness.audit.expected import ExpectedOutputs
from mfbench.measure import recording, roofline
from mfbench.measure.competitor import Competitor, Draw
from mfbench.measure.devices.load import BackgroundLoad
from mfbench.measure.forecast import Forecast
from mfbench.measure.planning import Goal, Plan, duration
from mfbench.measure.recording import Origin
from mfbench.measure.rounds import CaseTiming, TimingHooks, time_in_rounds
from mfbench.measure.worker.process import WorkerProcess
from mfbench.problems.inputs import draw
from mfbench.problems.shared import SharedInputs
from mfbench.results.codes import ProviderFailure
from mfbench.results.records import Record
from mfbench.stats import intervals


def measure_case(
    origin: Origin,
    workers: Mapping[str, WorkerProcess],
    *,
    baseline: str,
    margin: float,
    budget_s: float,
    resolve: float | None = None,
    family: int = 1,
    progress: Callable[[str], None] = lambda _: None,
    forecast: Forecast | None = None,
) -> dict[str, Record]:
    """Return one record for every provider.

    Args:
        origin: of the records; holds the case and the device.
        workers: by provider.
        baseline: the provider that speed-ups are against.
        margin: of the verdicts.
        budget_s: seconds for timing.
        resolve: smallest relative difference that the verdicts should tell; None: what the budget allows.
        family: number of comparisons whose verdicts hold simultaneously.
        progress: is called with what is being done and, where that is known, how long it will take.
        forecast: learns how long the steps take, for the cases that follow.
    """
    case, forecast = origin.case, forecast or Forecast()
    work = float(case.m * case.n * (case.rank + 1))
    with forecast.step("data", work, progress):
        shared = SharedInputs(draw(case))
        inputs = shared.inputs
    with forecast.step("oracle", work, progress):
        standard = gate.standard(inputs)
    competitors = [Competitor(name, worker, case, origin.device) for name, worker in workers.items()]
    for competitor in competitors:
        with contextlib.suppress(ProviderFailure), forecast.step(f"gate {competitor.name}", work, progress):
            competitor.gate(standard, shared.location)
    with forecast.step("parameters", work, progress):
        timed_on, unseen = Draw.of(standard, inputs, case), Draw.of(standard, inputs, case)
    goal = Goal(budget_s, resolve, margin, intervals.family_confidence(family))
    timing = _time(competitors, origin, timed_on, baseline, goal, progress)
    if timing:
        with forecast.step("gate again", work, progress):
            for competitor in _passing(competitors):
                with contextlib.suppress(ProviderFailure):
                    competitor.gate_again(unseen, timing.providers[competitor.name])
    for competitor in competitors:
        with contextlib.suppress(ProviderFailure):
            competitor.release()
    records = {c.name: _failure(origin, c) for c in competitors if c.failure}
    passing = _passing(competitors)
    if timing and passing:
        against = baseline if baseline in [competitor.name for competitor in passing] else None
        ceilings, observed = roofline.measure(case, origin.device), inputs.observed
        for competitor in passing:
            name, prepared = competitor.name, competitor.prepared
            if competitor.eager:
                log.note(f"{name}: {competitor.eager}")
            records[name] = origin.success(
                name,
                competitor.ran_with,
                correctness=recording.correctness(competitor.checks),
                compile_s=max(0.0, prepared.first_s - prepared.second_s),
                peak_bytes=prepared.peak_bytes,
                **recording.timed(origin, name, timing, against, margin, family, ceilings, observed),
            )
    return records


def _passing(competitors: Sequence[Competitor]) -> list[Competitor]:
    return [competitor for competitor in competitors if competitor.failure is None]


def _time(
    competitors: Sequence[Competitor],
    origin: Origin,
    timed_on: Draw,
    baseline: str,
    goal: Goal,
    progress: Callable[[str], None],
) -> CaseTiming | None:
    """Time all that have not failed. When one fails during timing, start again without it."""
    expected = ExpectedOutputs.of(timed_on.standard)
    while passing := _passing(competitors):
        progress("pilot")
        for competitor in passing:
            competitor.begin_timing(timed_on, expected)
        names = [competitor.name for competitor in passing]
        estimates_s = {competitor.name: competitor.prepared.second_s for competitor in passing}
        pivot = baseline if baseline in names else names[0]

        def announce(plan: Plan) -> None:
            progress(f"timing, {plan}")
            if goal.resolve is not None:
                log.note(f"{origin.case.label}: {_announcement(plan, goal)}")

        try:
            timing = time_in_rounds(
                _hooks(passing, competitors, origin.device), pivot, goal, origin.case.seed, estimates_s, announce
            )
        except ProviderFailure:
            continue  # the competitor has kept it
        for competitor in passing:
            with contextlib.suppress(ProviderFailure):
                competitor.check_clock(timing.providers[competitor.name])
        return timing
    return None


def _announcement(plan: Plan, goal: Goal) -> str:
    """Return what is about to be timed, and what it would take to reach the goal if the budget does not allow that."""
    if plan.further or plan.wanted_s <= plan.seconds:
        return str(plan)
    return f"{plan}; to resolve {goal.resolve:g} takes about {duration(plan.wanted_s)}, more than the budget allows"


def _hooks(passing: Sequence[Competitor], competitors: Sequence[Competitor], device: str) -> TimingHooks:
    def place() -> None:
        for competitor in passing:
            competitor.place()

    samplers = {competitor.name: competitor.sample for competitor in passing}
    if device != "cpu":
        return TimingHooks(samplers, place)
    pids = [pid for competitor in competitors if (pid := competitor.worker.pid) is not None]
    return TimingHooks(samplers, place, BackgroundLoad(pids).cores)


def _failure(origin: Origin, competitor: Competitor) -> Record:
    failure = competitor.failure
    assert failure is not None
    correctness = recording.correctness(competitor.checks) if competitor.checks else None
    return origin.failure(competitor.name, failure.code, failure.reason, correctness)
