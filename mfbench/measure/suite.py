"""A suite run: one case after another, the same worker processes throughout."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch

from mfbench.errors import DataUnavailable, NotComparable, UsageError
from mfbench.measure.case import measure_case
from mfbench.measure.devices import memory
from mfbench.measure.recording import Origin
from mfbench.measure.worker.process import WorkerProcess
from mfbench.problems.cases import Case
from mfbench.problems.inputs import sized
from mfbench.providers.revision import Checkout
from mfbench.results import environment
from mfbench.results.codes import Code
from mfbench.results.records import Record


class Plan(NamedTuple):
    """What to run, and how."""

    run_id: str
    cases: Sequence[Case]
    providers: Sequence[str]  # the baseline among them
    baseline: str
    device: str
    margin: float
    budget_s: float  # for the timing of a case
    time_limit_s: float  # for a single answer of a provider
    threads: int | None
    family: int  # how many comparisons with a baseline the run makes, on all devices
    done: frozenset[tuple[Case, str, str]] = frozenset()  # keys of finished records, which are not measured again
    against: Checkout | None = None  # where the providers that are named so come from


def run(plan: Plan, progress: Callable[[Case, str], None]) -> Iterable[list[Record]]:
    """The records of one case after another, as each case ends.

    Raises:
        UsageError: a provider cannot be loaded, or a data file cannot be read.
        NotComparable: the kernels of the other checkout cannot be loaded by this harness.
    """
    before = torch.get_num_threads()
    threads = plan.threads or before
    plan = plan._replace(threads=threads)
    workers = {name: _worker(plan, name) for name in plan.providers}
    sources = {name: environment.source(name) for name in plan.providers}
    try:
        if threads != before:
            torch.set_num_threads(threads)
        for worker in workers.values():
            worker.start()
        for worker in workers.values():
            _wait_for(worker, plan)
        for case in plan.cases:
            yield _run_case(plan, case, workers, sources, progress)
    finally:
        for worker in workers.values():
            worker.stop()
        if threads != before:
            torch.set_num_threads(before)


def _worker(plan: Plan, name: str) -> WorkerProcess:
    elsewhere = plan.against.provider(name) if plan.against else None
    if plan.against is None or elsewhere is None:
        return WorkerProcess(name, plan.device, plan.threads, plan.time_limit_s)
    other = plan.against
    return WorkerProcess(
        other.location(elsewhere), plan.device, plan.threads, plan.time_limit_s, other.folder,
        harness_first=other.repository is not None,
    )  # fmt: skip


def _wait_for(worker: WorkerProcess, plan: Plan) -> None:
    try:
        worker.ready()
    except UsageError as error:
        if plan.against is None or worker.folder is None:
            raise
        raise NotComparable(f"this harness cannot load the kernels of {plan.against.revision}: {error}") from None


def _run_case(
    plan: Plan,
    case: Case,
    workers: dict[str, WorkerProcess],
    sources: dict[str, str | None],
    progress: Callable[[Case, str], None],
) -> list[Record]:
    progress(case, "data")
    missing = None
    if case.mask == "none" and "int" in case.ratings_dtype:
        missing = (
            Code.NO_MASK_FOR_INTEGERS, f"{case.ratings_dtype} ratings have no NaN to mark unobserved entries with"
        )  # fmt: skip
    try:
        case = sized(case)
    except DataUnavailable as error:
        missing = Code.DATA_UNAVAILABLE, str(error)
    origin = Origin(plan.run_id, case, plan.device, sources)
    wanted = [name for name in plan.providers if (case, name, plan.device) not in plan.done]
    if missing or not wanted:
        return [origin.failure(name, *missing) for name in wanted] if missing else []
    taking_part = list(dict.fromkeys([plan.baseline, *wanted]))  # the ratios need the baseline, measured again or not
    try:
        with memory.limited_to_free_memory():
            records = measure_case(
                origin,
                {name: workers[name] for name in taking_part},
                baseline=plan.baseline,
                margin=plan.margin,
                budget_s=plan.budget_s,
                family=plan.family,
                progress=lambda what: progress(case, what),
            )
    except (MemoryError, RuntimeError) as error:
        if not memory.exhausted(error):
            raise
        reason = f"the oracle does not fit into memory: {error}"
        return [origin.failure(name, Code.ORACLE_OOM, reason) for name in wanted]
    return [records[name] for name in wanted]
