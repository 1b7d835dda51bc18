"""`mfbench gpu-check`: run the checks, write records, page and summary, and print the summary."""

from __future__ import annotations

import os
import time
from pathlib import Path

from mfbench import log
from mfbench.errors import MfbenchError, UsageError
from mfbench.gpu_check.journal import Journal
from mfbench.gpu_check.machine import Gpu
from mfbench.gpu_check.options import CheckOptions
from mfbench.gpu_check.run import GRACE_S, Findings, run_tasks, tasks, watch
from mfbench.gpu_check.summary import summary
from mfbench.installation import missing_packages
from mfbench.results import environment

# What cannot be had without a package, which the summary says.
WITHOUT = {
    "scipy": "no confidence intervals, nor verdicts on times",
    "psutil": "no memory size of the host in records",
    "pydantic": "no page; elsewhere: mfbench report {out} --out {page}",
}


def command(options: CheckOptions) -> int:
    """Check the GPU, print the summary, and return the exit code: 1 if something is wrong or was not checked.

    Raises:
        UsageError: there is no GPU, or a file cannot be written.
    """
    begin = time.monotonic()
    machine = Gpu()
    journal = Journal(options.out)
    findings = Findings(machine.name)

    def finish() -> int:
        text = summary(findings, environment.describe(machine.device), missing(options.out))
        _write(options.out.with_suffix(".txt"), text)
        print(text, end="", flush=True)
        return int(not findings.right)

    def expire() -> None:
        """End the process, whose main thread may wait for the device forever; its records are on the disk."""
        findings.lost = "a check did not end in time"
        finish()
        os._exit(1)

    timer = watch(options.seconds + GRACE_S, expire)
    try:
        run_tasks(tasks(machine, options.seed), machine, journal, begin + options.seconds, findings)
    finally:
        timer.cancel()
        journal.close()
    code = finish()
    write_page(options.out)
    return code


def missing(out: Path) -> list[str]:
    """Return a line for each package that is not installed, with what is left out."""
    names = {"out": out, "page": out.with_suffix(".html")}
    return [f"without {name}: {WITHOUT[name].format(**names)}" for name in missing_packages() if name in WITHOUT]


def write_page(out: Path) -> None:
    """Write the page beside the records, if its packages are installed."""
    if "pydantic" in missing_packages():
        return
    from mfbench.commands import report

    try:
        report.command([out], out.with_suffix(".html"), None, None, "svg", 0.02)
    except MfbenchError as error:
        log.note(f"no page: {error.message}")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}", code="unwritable-file", argument="out") from None
