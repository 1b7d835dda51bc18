"""Measure the scaling of a case: launches in turns, the gate, and ratios between launches."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mfbench.correctness import gate
from mfbench.correctness.gate import OutputCheck, Standard, findings
from mfbench.measure import recording
from mfbench.measure.planning import Goal
from mfbench.measure.recording import Fields, Origin
from mfbench.measure.rounds import CaseTiming, ProviderTiming
from mfbench.measure.scaling.launch import launch
from mfbench.measure.scaling.member import BACKEND, COMPUTING, Job, JobResult, Launched, run_member
from mfbench.measure.scaling.model import Network, Problem, Processor
from mfbench.measure.scaling.plan import VISITS, Cell, Plan
from mfbench.problems.cases import Case
from mfbench.problems.inputs import draw
from mfbench.problems.shared import SharedInputs
from mfbench.results.codes import Code, ProviderFailure
from mfbench.results.records import Record
from mfbench.stats import intervals

MODELLED = "fused"  # the provider whose step the model describes


class Settings(NamedTuple):
    """How to measure."""

    providers: Sequence[str]
    baseline: str
    margin: float  # of the verdicts
    budget_s: float  # for timing a case in all launches
    family: int  # comparisons with the baseline in the run
    time_limit_s: float  # longest time that a process waits for the others


class Problems:
    """Inputs and standards of the gate, made once for each number of users."""

    def __init__(self) -> None:
        self._made: dict[Case, tuple[SharedInputs, Standard]] = {}

    def of(self, case: Case) -> tuple[SharedInputs, Standard]:
        """Return a case's inputs, in memory that every process can map, and the standard that outputs are judged by."""
        case = case.model_copy(update={"processes": None})
        if case not in self._made:
            inputs = SharedInputs(draw(case))
            self._made[case] = inputs, gate.standard(inputs.inputs)
        return self._made[case]


class Visit(NamedTuple):
    """What a launch found out about a cell."""

    turn: int  # number of the launch in the series
    result: JobResult
    launched: Launched

    def median_s(self, name: str) -> float:
        """Return the median seconds of a step."""
        return self.result.timing.providers[name].median_s


class Findings:
    """What all launches found out about the cells."""

    def __init__(self) -> None:
        self.visits: dict[Cell, list[Visit]] = {}
        self.failures: dict[tuple[Cell, str], ProviderFailure] = {}  # by cell and provider
        self.checks: dict[tuple[Cell, str], Mapping[str, OutputCheck]] = {}

    def passing(self, cell: Cell, providers: Sequence[str]) -> list[str]:
        """Return the providers that have not failed."""
        return [name for name in providers if (cell, name) not in self.failures]


def measure_series(
    plan: Plan, settings: Settings, run_id: str, progress: Callable[[str], None] = lambda _: None
) -> list[Record]:
    """Return the records of all cells of a plan, one for each provider.

    Args:
        plan: of the launches.
        settings: how to measure.
        run_id: of the records.
        progress: is called with what is being done.
    """
    found, problems = Findings(), Problems()
    launches = list(plan.launches())
    for turn, cells in enumerate(launches):
        count, threads = cells[0].processes, cells[0].threads
        progress(f"launch {turn + 1} of {len(launches)}: processes {count}, threads of each {threads}")
        _visit(turn, cells, plan, settings, problems, found)
    return [_record(cell, name, plan, settings, found, run_id) for cell in plan.cells for name in settings.providers]


def _visit(
    turn: int, cells: Sequence[Cell], plan: Plan, settings: Settings, problems: Problems, found: Findings
) -> None:
    """Launch the processes of some cells once, unless a provider is left for none of them."""
    taking_part = {cell: names for cell in cells if (names := found.passing(cell, settings.providers))}
    if not taking_part:
        return
    jobs = []
    for cell, names in taking_part.items():
        against = settings.baseline if settings.baseline in names else names[0]
        goal = Goal(settings.budget_s / VISITS, None, settings.margin, intervals.family_confidence(settings.family))
        calibrate = MODELLED if cell is plan.one and MODELLED in names else None
        location = problems.of(cell.case)[0].location
        grouped = cell.case.processes is not None
        jobs.append(Job(location, names, against, goal, cell.case.seed + turn, grouped, calibrate))
    try:
        launched: Launched = launch(cells[0].processes, run_member, jobs, cells[0].threads, settings.time_limit_s)
    except ProviderFailure as failure:
        for cell, names in taking_part.items():
            found.failures.update({(cell, name): failure for name in names})
        return
    for (cell, names), result in zip(taking_part.items(), launched.jobs, strict=True):
        found.visits.setdefault(cell, []).append(Visit(turn, result, launched))
        for name in names:
            _check(cell, name, problems.of(cell.case)[1], result, found)


def _check(cell: Cell, name: str, standard: Standard, result: JobResult, found: Findings) -> None:
    found.checks[cell, name] = standard.judge(result.outputs[name])
    if wrong := findings(found.checks[cell, name], ()):
        reason = "; ".join(finding.message for finding in wrong)
        found.failures[cell, name] = ProviderFailure(wrong[0].code, reason)


def _record(cell: Cell, name: str, plan: Plan, settings: Settings, found: Findings, run_id: str) -> Record:
    origin, checks = Origin(run_id, cell.case, "cpu"), found.checks.get((cell, name))
    correctness = recording.correctness(checks) if checks else None
    if failure := found.failures.get((cell, name)):
        return origin.failure(name, failure.code, failure.reason, correctness)
    visits = found.visits[cell]
    names = found.passing(cell, settings.providers)
    timing = merged([visit.result.timing for visit in visits])
    against = settings.baseline if settings.baseline in names else None
    observed = cell.case.expected_ratings
    fields = recording.timed(origin, name, timing, against, settings.margin, settings.family, None, observed)
    fields["timing"]["method"] = f"perf_counter, slowest process, {len(visits)} launches, {recording.METHOD}"
    if cell.case.processes:
        fields["group"] = _group(cell, name, plan, found)
    if cell.kind and (plan.one, name) not in found.failures:
        fields["scaling"] = _scaling(cell, name, plan, found)
    return origin.success(name, {"threads": cell.threads}, correctness=correctness, **fields)


def merged(timings: Sequence[CaseTiming]) -> CaseTiming:
    """Return the rounds of several launches as those of one."""
    first = timings[0]
    providers = {
        name: ProviderTiming(
            samples=np.concatenate([timing.providers[name].samples for timing in timings]),
            loops=max(timing.providers[name].loops for timing in timings),
            cold=False,
            gaps=False,
        )
        for name in first.providers
        if all(name in timing.providers for timing in timings)  # others failed meanwhile
    }
    return first._replace(
        providers=providers,
        pilot_rounds=sum(timing.pilot_rounds for timing in timings),
        placements=sum(timing.placements for timing in timings),
        throttled=sum(timing.throttled for timing in timings),
        dropped=sum(timing.dropped for timing in timings),
        background_cores=np.concatenate([timing.background_cores for timing in timings]),
        planned_s=sum(timing.planned_s for timing in timings),
        took_s=sum(timing.took_s for timing in timings),
    )


def _group(cell: Cell, name: str, plan: Plan, found: Findings) -> Fields:
    visits = found.visits[cell]
    whole = np.array([visit.median_s(name) for visit in visits])
    computing = whole if cell.processes == 1 else np.array([visit.median_s(name + COMPUTING) for visit in visits])
    network = _network(cell, found)
    return {
        "backend": BACKEND,
        "threads": cell.threads,
        "launches": len(visits),
        "computing_s": float(np.median(computing)),
        "communicating_s": float(np.median(whole - computing)),
        "latency_s": network.latency_s if network else None,
        "bytes_per_s": network.bytes_per_s if network else None,
        "predicted_s": predicted_s(cell, plan, found) if name == MODELLED else None,
    }


def _network(cell: Cell, found: Findings) -> Network | None:
    """Return what binds the processes of a cell: the median of the launches."""
    fitted = [network for visit in found.visits[cell] if (network := visit.launched.probes.network(cell.processes))]
    if not fitted:
        return None
    latency_s, bytes_per_s = (float(np.median([network[place] for network in fitted])) for place in (0, 1))
    return Network(latency_s, bytes_per_s)


def predicted_s(cell: Cell, plan: Plan, found: Findings) -> float | None:
    """Return the model's seconds of a step; None where nothing calibrates it.

    The kernel's rate is that of one process on some of the users, times what is left of a process's rate of other
    arithmetic when all of them compute.
    """
    calibrations = [c for visit in found.visits.get(plan.one, []) if (c := visit.result.calibration)]
    if not calibrations:
        return None
    alone, beside = (
        np.median([visit.launched.probes.flops_per_s for visit in found.visits[each]]) for each in (plan.one, cell)
    )
    overhead_s = float(np.median([c.overhead_s for c in calibrations]))
    per_user = float(np.median([(c.seconds - c.overhead_s) / c.share for c in calibrations]))
    rate = Problem.of(plan.one.case).operations(1) / max(per_user, 1e-9)
    slowed = float(alone / beside)
    problem = Problem.of(cell.case)
    computing_s = Processor(rate / slowed, overhead_s=overhead_s * slowed).seconds(problem, cell.processes)
    network = _network(cell, found)
    return computing_s + (network.seconds(problem.message_bytes(cell.processes), cell.processes) if network else 0.0)


def _scaling(cell: Cell, name: str, plan: Plan, found: Findings) -> Fields:
    ratio = _ratio(plan.one, cell, name, found)
    share = 1 / cell.processes if cell.kind == "strong" else 1.0
    fields: dict[str, Any] = {
        "kind": cell.kind,
        "ratio": ratio.estimate,
        "ci95": _ends(ratio),
        "efficiency": share * ratio.estimate,
        "efficiency_ci95": _ends(ratio, share),
    }
    alone = plan.alone
    comparable = alone is not None and cell.kind == "strong" and cell.processes * cell.threads == alone.threads
    if alone is not None and comparable and (alone, name) not in found.failures:
        one = _ratio(alone, cell, name, found)
        fields |= {
            "one_process_threads": alone.threads,
            "one_process_ratio": one.estimate,
            "one_process_ci95": _ends(one),
        }
    return fields


def _ratio(base: Cell, cell: Cell, name: str, found: Findings) -> intervals.Interval:
    """Return base / cell over the cell's launches; the base's are those before and after each."""
    turns = [visit.turn for visit in found.visits[base]]
    seconds = np.log([visit.median_s(name) for visit in found.visits[base]])
    own = np.array([visit.median_s(name) for visit in found.visits[cell]])
    between = np.exp(np.interp([visit.turn for visit in found.visits[cell]], turns, seconds))
    return intervals.ratio_interval(between, own)


def _ends(interval: intervals.Interval, factor: float = 1.0) -> tuple[float | None, float | None]:
    low, high = (factor * end if math.isfinite(end) else None for end in interval[1:])
    return (None, None) if high is None else (low, high)


def failed(cases: Sequence[Case], providers: Sequence[str], run_id: str, code: Code, reason: str) -> list[Record]:
    """Return records that say why no case could be measured."""
    return [Origin(run_id, case, "cpu").failure(name, code, reason) for case in cases for name in providers]
