"""`mfbench run`: from options to a plan, from a plan to records on the disk and a table on the screen."""

from __future__ import annotations

import datetime
import json
import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mfbench import providers, runner, table
from mfbench.cases import Case, load_suite
from mfbench.errors import UsageError
from mfbench.records import Record, Writer, read


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
) -> tuple[list[Record], bool]:
    """Run a suite, appending to `out`; the records of the whole run, and whether it was interrupted.

    Raises:
        UsageError: a name, a file or a value that does not fit.
    """
    suite = load_suite(suite_name)
    cases = suite.cases(overrides)
    if not cases:
        raise UsageError(f"--size: suite {suite.name!r} has only data sets, which bring their own sizes")
    taking_part = list(dict.fromkeys([*(provider or suite.providers), baseline]))
    for name in taking_part:
        providers.check(name)
    devices = pick_devices(device)

    run_id, records = _new_run_id(), []
    if resume and out.exists():
        earlier, notes = read(out)
        for note in notes:
            print(f"mfbench: {note}", file=sys.stderr)
        if earlier:
            run_id = earlier[-1].run_id
            records = [record for record in earlier if record.run_id == run_id]
    writer = Writer(out)
    done = frozenset(record.key for record in records)
    try:
        with _progress() as bar:
            task = bar.add_task("", total=len(cases) * len(devices))
            for name in devices:
                plan = runner.Plan(
                    run_id, cases, taking_part, baseline, name, margin, budget_s, time_limit_s, threads, done
                )
                for finished in runner.run(plan, lambda case, what: _tell(bar, task, case, what)):
                    writer.append(finished)
                    records += finished
                    bar.advance(task)
    except KeyboardInterrupt:
        return records, True
    finally:
        writer.close()
    return records, False


def show(records: Sequence[Record], as_json: bool) -> None:
    """The records on stdout, as JSON or as a table."""
    if as_json:
        print(json.dumps([record.model_dump(mode="json", exclude_none=True) for record in records]))
        return
    console = Console(highlight=False)
    console.print(table.table(records))
    console.print(table.legend(records), style="dim")


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
        disable=not sys.stderr.isatty(),
    )


def _tell(bar: Progress, task: Any, case: Case, what: str) -> None:
    bar.update(task, description=f"{case.m}×{case.n} {what}" if case.m else f"{case.data} {what}")
