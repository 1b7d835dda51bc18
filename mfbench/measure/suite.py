"""Run a suite: plan its sessions, and append their records to a file as each case ends."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from mfbench import log
from mfbench.errors import UsageError
from mfbench.measure.devices.selection import select
from mfbench.measure.options import RunOptions
from mfbench.measure.planning import duration
from mfbench.measure.resume import last_run
from mfbench.measure.session import Session
from mfbench.problems import datasets
from mfbench.problems.cases import CaseSpec, Suite, find_suite
from mfbench.providers import registry
from mfbench.providers.revision import Checkout
from mfbench.results import environment
from mfbench.results.environment import new_run_id
from mfbench.results.records import Record, check_name, read
from mfbench.results.writer import Writer

if TYPE_CHECKING:
    from mfbench.measure.scaling.session import ScalingSession

SPARSE_BASELINE = "gather"
SCALING_SUITE = "scaling"  # with several processes, unless options describe the cases


class Progress:
    """Receives the progress of a run; this base class ignores it."""

    def start(self, cases: int) -> None:
        """Called with the number of cases on all devices before the first."""

    def report(self, spec: CaseSpec, activity: str) -> None:
        """Called with each thing that is done with a case."""

    def advance(self) -> None:
        """Called as a case ends."""


class SuiteRun(NamedTuple):
    """The records of a whole run, those of a resumed part included."""

    records: list[Record]
    interrupted: bool


def run_suite(options: RunOptions, progress: Progress | None = None, revision: Checkout | None = None) -> SuiteRun:
    """Run a suite and append its records to `options.out`; Ctrl-C ends it early.

    Args:
        options: what to measure and how.
        progress: receives the progress.
        revision: time every provider against itself in this revision, instead of all against one baseline.

    Raises:
        UsageError: a name or a file that does not fit.
        NotComparable: this harness cannot load the revision's kernels.
    """
    progress = progress or Progress()
    datasets.forget()
    sessions: Sequence[Session | ScalingSession]
    if options.processes is None:
        sessions = _sessions(options, revision)
        records = last_run(options.out, sessions) if options.resume and options.out.exists() else []
    else:
        sessions, records = [_scaling_session(options)], []
    run_id = records[0].run_id if records else new_run_id()
    if revision:
        revision.check_resumed(records)
        records = revision.complete(records)
    if options.resume:
        log.note(f"--resume: {len(records)} measurements are kept")
    done = frozenset(record.key for record in records)

    def report(spec: CaseSpec, activity: str) -> None:
        log.step(f"{spec.label}: {activity}")
        progress.report(spec, activity)

    writer = Writer(options.out)
    cases = sum(len(session.specs) for session in sessions)
    progress.start(cases)
    if options.resolve is not None:
        each = "the case" if cases == 1 else f"each of {cases} cases"
        log.note(f"--resolve: rounds for up to {duration(options.budget_s)} in {each}, besides the gates")
    try:
        for session in sessions:
            for finished in replace(session, run_id=run_id, done=done).run(report):
                if revision:
                    finished = [revision.stamped(record) for record in finished]
                writer.append(finished)
                records += finished
                progress.advance()
    except KeyboardInterrupt:  # perhaps between writing to the disk and adding to the list
        return SuiteRun([record for record in read(options.out)[0] if record.run_id == run_id], interrupted=True)
    finally:
        writer.close()
    return SuiteRun(records, interrupted=False)


def _scaling_session(options: RunOptions) -> ScalingSession:
    """Return the session of several processes."""
    from mfbench.measure.scaling.session import ScalingSession  # here, as torchrun's agent takes long to import
    from mfbench.providers import over_processes

    assert options.processes is not None
    described = options.suite is not None or "size" in options.axes
    suite, specs = _cases(options if described else replace(options, suite=SCALING_SUITE))
    environment.check_threads(options.threads)
    baseline = options.baseline or _baseline(options, suite, specs)
    if not options.provider:  # others of the suite compute alone
        able = [name for name in suite.providers if name in over_processes.NAMES]
        suite = suite.model_copy(update={"providers": able})
    providers = _checked_providers(options, suite, baseline)
    for name in providers:
        over_processes.check(name, "baseline" if name == options.baseline else "provider")
    return ScalingSession(
        options=options, run_id="", specs=specs, processes=options.processes, providers=providers, baseline=baseline
    )


def _cases(options: RunOptions) -> tuple[Suite, list[CaseSpec]]:
    """Return the suite, and its cases with the values that options replace."""
    suite = find_suite(options.suite, options.axes)
    check_name(suite.name, "suite")
    specs = suite.specs(options.axes)
    if not specs:
        message = f"suite {suite.name!r} has only data sets, which have their own sizes"
        raise UsageError(message, code="no-cases", argument="size")
    for spec in specs:
        check_name(spec.data, "data")
    return suite, specs


def _sessions(options: RunOptions, revision: Checkout | None) -> list[Session]:
    """Return a session for each device and group of providers that are timed together."""
    suite, specs = _cases(options)
    environment.check_threads(options.threads)
    baseline = options.baseline or _baseline(options, suite, specs)
    providers = _checked_providers(options, suite, None if revision else baseline)
    if revision:
        groups = [([revision.name(name), name], revision.name(name)) for name in providers]
    else:
        groups = [(providers, baseline)]
    planned = list(itertools.product(select(options.device), groups))
    family = len(specs) * sum(len(together) - 1 for _, (together, _) in planned)
    return [
        Session(
            options=options, run_id="", specs=specs, device=device, providers=together, baseline=baseline,
            family=family, revision=revision,
        )
        for device, (together, baseline) in planned
    ]  # fmt: skip


def _baseline(options: RunOptions, suite: Suite, specs: Sequence[CaseSpec]) -> str:
    """Return the suite's baseline; where options alone ask for sparse ratings, what PyTorch users write for these."""
    sparse = options.suite is None and all(spec.layout == "sparse" for spec in specs)
    return SPARSE_BASELINE if sparse else suite.baseline


def _checked_providers(options: RunOptions, suite: Suite, baseline: str | None) -> list[str]:
    providers = list(options.provider or suite.providers)
    if baseline:
        providers = list(dict.fromkeys([*providers, baseline]))
    for name in providers:
        given = name in (options.provider or ())
        argument = "provider" if given else "baseline" if name == options.baseline else "suite"
        check_name(name, argument)
        registry.check(name, argument)
    return providers
