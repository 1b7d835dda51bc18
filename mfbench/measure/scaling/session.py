"""A session over several processes: the scaling of one case after the other."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mfbench.errors import UsageError
from mfbench.measure import footprint
from mfbench.measure.devices import memory
from mfbench.measure.options import RunOptions
from mfbench.measure.scaling.plan import Plan, plan
from mfbench.measure.scaling.series import Settings, failed, measure_series
from mfbench.measure.session import Report, resolved
from mfbench.problems.cases import Case, CaseSpec
from mfbench.results.codes import Code
from mfbench.results.records import Record


@dataclass(frozen=True, kw_only=True)
class ScalingSession:
    """What to measure over which numbers of processes."""

    options: RunOptions
    run_id: str
    specs: Sequence[CaseSpec]
    processes: Sequence[int]
    providers: Sequence[str]  # including the baseline
    baseline: str
    device: str = "cpu"
    done: frozenset[tuple[Case, str, str]] = frozenset()  # of a resumed run, which this never is

    def run(self, report: Report) -> Iterator[list[Record]]:
        """Yield the records of each case as it ends.

        Args:
            report: called with a case and what is being done with it.

        Raises:
            UsageError: a case has fewer users than there are processes, or a data file cannot be read.
        """
        cases = {spec: resolved(spec, self.device) for spec in self.specs}
        plans = {spec: self._plan(case) for spec, (case, obstacle) in cases.items() if obstacle is None}
        options, comparisons = self.options, len(self.providers) - 1
        family = comparisons * sum(len(planned.cells) for planned in plans.values())
        settings = Settings(self.providers, self.baseline, options.margin, options.budget_s, family, options.time_limit)
        for spec, (case, obstacle) in cases.items():
            if obstacle is not None:
                yield failed([case], self.providers, self.run_id, *obstacle)
            else:
                yield self._measured(plans[spec], settings, functools.partial(report, spec))

    def _plan(self, case: Case) -> Plan:
        most = max(self.processes)
        if case.m < most:
            message = f"expected at most the {case.m} users of {case.label}, got {most}"
            raise UsageError(message, code="bad-number", argument="processes")
        return plan(case, self.processes, self.options.threads)

    def _measured(self, planned: Plan, settings: Settings, progress: Callable[[str], None]) -> list[Record]:
        cases = [cell.case for cell in planned.cells]
        for cell in planned.cells:
            if too_large := footprint.obstacle(cell.case, cell.processes, self.device):
                return failed(cases, self.providers, self.run_id, Code.TOO_LARGE_FOR_MEMORY, too_large)
        try:
            with memory.limited_to_free_memory():
                return measure_series(planned, settings, self.run_id, progress)
        except (MemoryError, RuntimeError) as error:
            if not memory.exhausted(error):
                raise
            reason = f"the oracle does not fit into memory: {error}"
            return failed(cases, self.providers, self.run_id, Code.ORACLE_OOM, reason)
