"""Kill runs at random moments and resume them; count lost records and incomplete runs.

    python -m tests.studies.kills --kills 200

A run of many small cases is killed with SIGKILL, resumed, killed again, and so on; when one finishes, the next run
starts with an empty file. Every line in the file before a kill must be there after it.
"""

from __future__ import annotations

import random
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import click

from mfbench.results.records import read
from tests.mfbench.cli_runner import command

SUITE = """
description = "many cases, so that kills come between them"
providers = ["fused", "autograd"]
[[case]]
size = ["5x7", "30x40", "41x29", "64x64", "33x65", "128x8"]
rank = [3, 8]
"""
CASES = 12
SECONDS = (0.5, 8.0)  # shortest and longest time from the start of a run to its kill
POLL_S = 0.02  # between two reads of the file


class Outcome(NamedTuple):
    kills: int
    finished: int  # runs that completed
    lost: int  # kills after which a line was missing or changed
    unreadable: int  # kills after which a line other than the last was not a record
    incomplete: int  # completed runs without exactly the records of an undisturbed run

    @property
    def flawless(self) -> bool:
        return not (self.lost or self.unreadable or self.incomplete)


def kill_and_resume(folder: Path, kills: int, seed: int, longest_s: float = SECONDS[1]) -> Outcome:
    """Kill `kills` runs at random moments, then let the last one finish."""
    rng = random.Random(seed)
    suite, out = folder / "many.toml", folder / "out.jsonl"
    suite.write_text(SUITE)
    arguments = command("run", "--suite", suite, "--out", out, "--threads", 1, "--budget", 0.05, "--resume")
    killed = finished = lost = unreadable = incomplete = 0
    while killed < kills or out.exists():
        before, ended = _run_for(arguments, out, rng.uniform(SECONDS[0], longest_s) if killed < kills else None)
        found, notes = read(out) if out.exists() and out.stat().st_size else ([], [])
        unreadable += any("torn" not in note for note in notes)
        lost += not (out.exists() or not before) or not (not before or out.read_bytes().startswith(before))
        if ended:
            finished += 1
            keys = {record.key for record in found}
            incomplete += len(found) != 2 * CASES or len(keys) != 2 * CASES or {r.status for r in found} != {"ok"}
            out.unlink()
        else:
            killed += 1
    return Outcome(killed, finished, lost, unreadable, incomplete)


def _run_for(arguments: list[str], out: Path, seconds: float | None) -> tuple[bytes, bool]:
    """Run until killed; return the complete lines last seen in the file, and whether the run finished first."""
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=out.parent)
    end = None if seconds is None else time.monotonic() + seconds
    lines = b""
    try:
        while process.poll() is None and (end is None or time.monotonic() < end):
            time.sleep(POLL_S)
            content = out.read_bytes() if out.exists() else b""
            lines = content[: content.rfind(b"\n") + 1]
    finally:
        process.kill()
        process.wait()
    if process.returncode > 0:
        raise RuntimeError(f"the run ended with exit code {process.returncode}")
    return lines, process.returncode == 0


@click.command(help=__doc__)
@click.option("--kills", type=click.IntRange(min=1), default=200, show_default=True)
@click.option("--seed", default=1, show_default=True)
def main(kills: int, seed: int) -> None:
    with tempfile.TemporaryDirectory(prefix="mfbench-kills-") as folder:
        outcome = kill_and_resume(Path(folder), kills, seed)
    click.echo(
        f"{outcome.kills} kills, {outcome.finished} runs finished: {outcome.lost} lost a record, "
        f"{outcome.unreadable} left an unreadable line, {outcome.incomplete} runs were incomplete"
    )
    raise SystemExit(not outcome.flawless)


if __name__ == "__main__":
    main()
