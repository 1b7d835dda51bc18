"""`mfbench run`: measure a suite, and print its records or their table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from mfbench import log
from mfbench.measure.options import RunOptions
from mfbench.measure.suite import run_suite
from mfbench.report import scaling, terminal
from mfbench.report.progress import ProgressBar
from mfbench.report.terminal import Output
from mfbench.results.records import Record

INTERRUPTED = 130  # exit code, as a shell's for SIGINT
FAILED = ("wrong", "crashed", "timeout", "error")


def command(options: RunOptions, as_json: bool) -> int:
    """Run the suite, print, and return the exit code.

    Raises:
        UsageError: a name or a file that does not fit.
    """
    with ProgressBar() as bar:
        records, interrupted = run_suite(options, bar)
    show(records, as_json)
    if interrupted:
        note_interruption(options.out, resumable=options.processes is None)
        return INTERRUPTED
    return int(any(record.status in FAILED for record in records))


def note_interruption(out: Path, resumable: bool = True) -> None:
    """Note on stderr where the finished records are."""
    log.note(f"interrupted; finished records are in {out}" + (", and --resume continues the run" if resumable else ""))


def show(records: Sequence[Record], as_json: bool) -> None:
    """Print the records on stdout, as JSON or as a table."""
    if as_json:
        print(json.dumps([record.model_dump(mode="json", exclude_none=True) for record in records]))
        return
    console = Output()
    shown = scaling if any(record.case.processes for record in records) else terminal
    console.print(shown.table(records))
    if log.level() >= 0:
        console.print(shown.legend(records), style="dim")
