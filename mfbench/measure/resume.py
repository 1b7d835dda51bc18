"""The last run in a file of records, where this command line could have begun it: only then its verdicts hold together.

A record says by which margin it was judged, on which machine, and among how many comparisons.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from mfbench import log
from mfbench.errors import UsageError
from mfbench.measure.suite import Plan
from mfbench.results import comparison, environment
from mfbench.results.records import SCHEMA, Record, read


def last_run(path: Path, plans: Sequence[Plan]) -> list[Record]:
    """The records of the last run in the file; none where it holds no record.

    Args:
        plans: what the present command line asks for.

    Raises:
        UsageError: the file cannot be read, or that run was begun with other options, or in another environment.
    """
    found, notes = read(path)
    for note in notes:
        log.note(note)
    records = [record for record in found if record.run_id == found[-1].run_id]
    for record in records:
        for difference in _differences(record, plans):
            raise UsageError(
                f"--resume: the last run in {path} {difference}; the options that it began with go on with it, and "
                "another --out begins anew"
            )
    return records


def _differences(record: Record, plans: Sequence[Plan]) -> Iterator[str]:
    """Between the record's run and what is asked for."""
    if record.schema_ != SCHEMA:
        yield f"has schema {record.schema_}, and this is {SCHEMA}"
    cases = plans[0].cases
    if record.case.suite != cases[0].suite:
        yield f"is of suite {record.case.suite!r}, not {cases[0].suite!r}"
    if record.case.asked not in {case.asked for case in cases}:
        yield f"has a case that is not asked for, {record.case.label}"
    plan = next((p for p in plans if p.device == record.device and record.provider in p.providers), None)
    if plan is None:
        yield f"has a provider that is not asked for, {record.provider} on {record.device}"
        return
    if speedup := record.speedup:
        if speedup.baseline != plan.baseline:
            yield f"is against {speedup.baseline}, not {plan.baseline}"
        if speedup.margin != plan.margin:
            yield f"is by a margin of {speedup.margin:g}, not {plan.margin:g}"
        if speedup.family != plan.family:
            yield f"makes {speedup.family} comparisons, not {plan.family}"
    now = environment.describe(record.device) | {"threads": plan.threads or torch.get_num_threads()}
    for other in comparison.differences(record.env, now):
        yield f"was measured with {other.name} {other.base}, not {other.new}"
    if record.env.get("source") != environment.source(record.provider):
        yield f"was measured before {record.provider.rpartition(':')[0]} changed"
    elsewhere = plan.against and plan.against.provider(record.provider)  # another commit, looked at by `Checkout`
    if elsewhere is None and record.env.get("commit") != now["commit"]:
        yield f"was measured at commit {record.env.get('commit')}, not {now['commit']}"
