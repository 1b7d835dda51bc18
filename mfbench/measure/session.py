"""A session: the providers timed against each other on one device, case after case, in the same worker processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from mfbench import log
from mfbench.errors import DataUnavailable, NotComparable, UsageError
from mfbench.measure import footprint
from mfbench.measure.case import measure_case
from mfbench.measure.devices import memory
from mfbench.measure.forecast import Forecast
from mfbench.measure.options import RunOptions
from mfbench.measure.recording import Origin
from mfbench.measure.worker.process import WorkerProcess
from mfbench.problems.cases import Case, CaseSpec
from mfbench.problems.inputs import resolve
from mfbench.providers.revision import Checkout
from mfbench.results import environment
from mfbench.results.codes import Code
from mfbench.results.records import Record

Report = Callable[[CaseSpec, str], None]
Obstacle = tuple[Code, str]  # why a case cannot be measured


@dataclass(frozen=True, kw_only=True)
class Session:
    """What to measure together."""

    options: RunOptions
    run_id: str
    specs: Sequence[CaseSpec]
    device: str
    providers: Sequence[str]  # including the baseline
    baseline: str
    family: int  # comparisons with a baseline in the whole run, on all devices
    done: frozenset[tuple[Case, str, str]] = frozenset()  # keys of the records that a resumed run has already
    revision: Checkout | None = None  # source of the providers with its name

    def run(self, report: Report) -> Iterator[list[Record]]:
        """Yield the records of each case as it ends.

        Args:
            report: called with a case and what is being done with it.

        Raises:
            UsageError: a provider cannot be loaded, or a data file cannot be read.
            NotComparable: this harness cannot load the other revision's kernels.
        """
        before = torch.get_num_threads()
        threads = self.options.threads or before
        workers = {name: self._worker(name, threads) for name in self.providers}
        sources = {name: environment.source(name) for name in self.providers}
        forecast, cases = Forecast(), set[Case]()
        try:
            if threads != before:
                torch.set_num_threads(threads)
            for worker in workers.values():
                worker.start()
            for worker in workers.values():
                self._wait_for(worker)
            for spec in self.specs:
                yield self._run_case(spec, workers, sources, report, forecast, cases)
        finally:
            for worker in workers.values():
                worker.stop()
            if threads != before:
                torch.set_num_threads(before)

    def _worker(self, name: str, threads: int) -> WorkerProcess:
        limit, revision = self.options.time_limit, self.revision
        elsewhere = revision.provider(name) if revision else None
        if revision is None or elsewhere is None:
            return WorkerProcess(name, self.device, threads, limit)
        return WorkerProcess(
            revision.location(elsewhere), self.device, threads, limit, revision.folder,
            harness_first=revision.repository is not None,
        )  # fmt: skip

    def _wait_for(self, worker: WorkerProcess) -> None:
        try:
            worker.ready()
        except UsageError as error:
            if self.revision is None or worker.folder is None:
                raise
            message = f"this harness cannot load the kernels of {self.revision.revision}: {error.message}"
            raise NotComparable(message, code="revision-load-failed") from None

    def _run_case(
        self,
        spec: CaseSpec,
        workers: Mapping[str, WorkerProcess],
        sources: Mapping[str, str | None],
        report: Report,
        forecast: Forecast,
        cases: set[Case],
    ) -> list[Record]:
        """Return the records of a case; none if another specification has led to the same case, which `cases` holds."""
        report(spec, "data")
        case, obstacle = resolved(spec, self.device)
        if case in cases:
            log.note(f"{case.label}: asked for more than once, as layout {case.layout} and auto; measured once")
            return []
        cases.add(case)
        origin = Origin(self.run_id, case, self.device, sources)
        wanted = [name for name in self.providers if (case, name, self.device) not in self.done]
        if obstacle:
            return [origin.failure(name, *obstacle) for name in wanted]
        if not wanted:
            return []
        taking_part = list(dict.fromkeys([self.baseline, *wanted]))  # ratios need the baseline, even if it is done
        if too_large := footprint.obstacle(case, len(taking_part), self.device):
            return [origin.failure(name, Code.TOO_LARGE_FOR_MEMORY, too_large) for name in wanted]
        try:
            with memory.limited_to_free_memory():
                records = measure_case(
                    origin,
                    {name: workers[name] for name in taking_part},
                    baseline=self.baseline,
                    margin=self.options.margin,
                    budget_s=self.options.budget_s,
                    resolve=self.options.resolve,
                    family=self.family,
                    progress=lambda activity: report(spec, activity),
                    forecast=forecast,
                )
        except (MemoryError, RuntimeError) as error:
            if not memory.exhausted(error):
                raise
            reason = f"the oracle does not fit into memory: {error}"
            return [origin.failure(name, Code.ORACLE_OOM, reason) for name in wanted]
        return [records[name] for name in wanted]


def resolved(spec: CaseSpec, device: str) -> tuple[Case, Obstacle | None]:
    """Return the case of a specification, and what prevents measuring it, if anything does.

    Raises:
        UsageError: there is no such data set or file, or it cannot be read.
    """
    try:
        case = resolve(spec, device)
    except DataUnavailable as error:
        return spec.without_data(), (Code.DATA_UNAVAILABLE, str(error))
    if not case.sparse and case.mask == "none" and "int" in case.ratings_dtype:
        reason = f"{case.ratings_dtype} ratings have no NaN to mark unobserved entries with"
        return case, (Code.NO_MASK_FOR_INTEGERS, reason)
    return case, None
