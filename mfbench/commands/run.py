"""`mfbench run`: from options to a plan, from a plan to records on the disk and a table on the screen."""

from __future__ import annotations

import datetime
import itertools
import json
import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mfbench import log
from mfbench.errors import UsageError
from mfbench.measure import suite as suite_run
from mfbench.measure.resume import last_run
from mfbench.problems.cases import Case, load_suite
from mfbench.providers import registry
from mfbench.providers.revision import Checkout
from mfbench.report import terminal
from mfbench.report.terminal import Output
from mfbench.results.records import Record, Writer, read


def run_suite(
    suite_name: str,
    device: str | None,
    provider: Sequence[str] | None,
    overrides: Mapping[str, Any],
    out: Path,
    resume: bool,
    threads: int | None,
    baseline: str,
    margin: float,
    budget_s: float,
    time_limit_s: float,
    against: Checkout | None = None,
) -> tuple[list[Record], bool]:
    """Run a suite, appending to `out`; the records of the whole run, and whether it was interrupted.

    With `against`, every provider is timed with nobody but itself at that revision, which is its baseline.

    Raises:
        UsageError: a name, a file or a value that does not fit.
    """
    suite = load_suite(suite_name)
    cases = suite.cases(overrides)
    if not cases:
        raise UsageError(f"--size: suite {suite.name!r} has only data sets, which bring their own sizes")
    taking_part = list(provider or suite.providers)
    if not against:
        taking_part = list(dict.fromkeys([*taking_part, baseline]))
    for name in taking_part:
        named_by = "--provider" if name in (provider or ()) else "--baseline" if name == baseline else "--suite"
        registry.check(name, named_by)
    sessions = (
        [([against.name(name), name], against.name(name)) for name in taking_part]
        if against
        else [(taking_part, baseline)]
    )
    planned = list(itertools.product(pick_devices(device), sessions))
    family = len(cases) * sum(len(together) - 1 for _, (together, _) in planned)
    plans = [
        suite_run.Plan(
            _new_run_id(), cases, together, base, name, margin, budget_s, time_limit_s, threads, family, against=against
        )
        for name, (together, base) in planned
    ]
    records = last_run(out, plans) if resume and out.exists() else []
    run_id = records[0].run_id if records else plans[0].run_id
    if against:
        against.check_resumed(records)
        records = against.complete(records)
    if resume:
        log.note(f"--resume: {len(records)} measurements are kept")
    writer = Writer(out)
    done = frozenset(record.key for record in records)
    try:
        with _progress() as bar:
            task = bar.add_task("", total=len(cases) * len(plans))
            for plan in plans:
                plan = plan._replace(run_id=run_id, done=done)
                for finished in suite_run.run(plan, lambda case, what: _tell(bar, task, case, what)):
                    if against:
                        finished = [against.stamped(record) for record in finished]
                    writer.append(finished)
                    records += finished
                    bar.advance(task)
    except KeyboardInterrupt:  # it may have come between the disk and the list
        return [record for record in read(out)[0] if record.run_id == run_id], True
    finally:
        writer.close()
    return records, False


def tell_interrupted(out: Path) -> None:
    log.note(f"interrupted; what is finished is in {out}, and --resume goes on")


def show(records: Sequence[Record], as_json: bool) -> None:
    """The records on stdout, as JSON or as a table."""
    if as_json:
        print(json.dumps([record.model_dump(mode="json", exclude_none=True) for record in records]))
        return
    console = Output()
    console.print(terminal.table(records))
    if log.level() >= 0:
        console.print(terminal.legend(records), style="dim")


def pick_devices(device: str | None) -> list[str]:
    """`cpu`, `cuda` or both; by default the best one here."""
    cuda = torch.cuda.is_available()
    if device == "cuda" and not cuda:
        raise UsageError("--device: expected a device of this machine, got cuda, and PyTorch sees no GPU here")
    if device is None:
        return ["cuda" if cuda else "cpu"]
    return ["cpu", *(["cuda"] if cuda else [])] if device == "all" else [device]


def _new_run_id() -> str:
    return f"{datetime.datetime.now(datetime.timezone.utc):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty() or log.level() != 0,
    )


def _tell(bar: Progress, task: Any, case: Case, what: str) -> None:
    log.step(f"{case.label}: {what}")
    bar.update(task, description=f"{case.m}×{case.n} {what}" if case.m else f"{case.data} {what}")
