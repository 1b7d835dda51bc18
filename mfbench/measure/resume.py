"""Find the last run in a file of records, and refuse to continue it with other options or in another environment.

Only a run with one set of options has verdicts that hold together. A record holds the margin it was judged by, its
environment, and the number of comparisons in its run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from mfbench import log
from mfbench.errors import UsageError
from mfbench.measure.session import Session
from mfbench.results import comparison, environment
from mfbench.results.records import SCHEMA, Record, read


def last_run(path: Path, sessions: Sequence[Session]) -> list[Record]:
    """Return the records of the last run in the file; none if it holds no record.

    Args:
        path: of the records.
        sessions: what the present options ask for.

    Raises:
        UsageError: the file cannot be read, or that run was started with other options or in another environment.
    """
    found, notes = read(path)
    for note in notes:
        log.note(note)
    records = [record for record in found if record.run_id == found[-1].run_id]
    for record in records:
        for difference in _differences(record, sessions):
            raise UsageError(
                f"the last run in {path} {difference}; repeat the options that it was started with, or start another "
                "run with another --out",
                code="different-run",
                argument="resume",
            )
    return records


def _differences(record: Record, sessions: Sequence[Session]) -> Iterator[str]:
    """Describe how the record's run differs from the sessions."""
    if record.schema_ != SCHEMA:
        yield f"has schema {record.schema_}, and this is {SCHEMA}"
    specs = sessions[0].specs
    if record.case.suite != specs[0].suite:
        yield f"is of suite {record.case.suite!r}, not {specs[0].suite!r}"
    if not any(spec.leads_to(record.case) for spec in specs):
        yield f"has a case that is not asked for, {record.case.label}"
    session = next((s for s in sessions if s.device == record.device and record.provider in s.providers), None)
    if session is None:
        yield f"has a provider that is not asked for, {record.provider} on {record.device}"
        return
    if speedup := record.speedup:
        if speedup.baseline != session.baseline:
            yield f"is against {speedup.baseline}, not {session.baseline}"
        if speedup.margin != session.options.margin:
            yield f"has a margin of {speedup.margin:g}, not {session.options.margin:g}"
        if speedup.family != session.family:
            yield f"makes {speedup.family} comparisons, not {session.family}"
    asked = session.options.resolve
    if record.timing and record.timing.resolve != asked:
        yield f"was measured {_goal(record.timing.resolve)}, not {_goal(asked)}"
    threads = session.options.threads or torch.get_num_threads()
    now = environment.describe(record.device) | {"threads": threads}
    for other in comparison.differences(record.env, now):
        yield f"was measured with {other.name} {other.base}, not {other.new}"
    if record.env.get("source") != environment.source(record.provider):
        yield f"was measured before {record.provider.rpartition(':')[0]} changed"
    elsewhere = session.revision and session.revision.provider(record.provider)  # `Checkout` checks its commit
    if elsewhere is None and record.env.get("commit") != now["commit"]:
        yield f"was measured at commit {record.env.get('commit')}, not {now['commit']}"


def _goal(resolve: float | None) -> str:
    return "without --resolve" if resolve is None else f"with --resolve {resolve:g}"
