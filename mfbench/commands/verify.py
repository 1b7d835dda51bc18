"""`mfbench verify`: the table of results, and the failures."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.progress import track
from rich.text import Text

from mfbench import log
from mfbench.measure.devices.selection import select
from mfbench.measure.recording import finite
from mfbench.providers import registry
from mfbench.providers.outputs import LETTERS
from mfbench.report.labels import short
from mfbench.report.terminal import Block, Fitted, Output
from mfbench.testing.random_problems import draw, long_walk
from mfbench.testing.verify import Failure, Tally, verify

LISTED = 20  # most failures printed


def command(device: str | None, names: Sequence[str] | None, seed: int, count: int, as_json: bool) -> int:
    """Print the results of `verify`, and return the exit code.

    Raises:
        UsageError: no such provider, or it cannot be loaded; no such device.
    """
    for name in names or ():
        registry.check(name)
    drawn = list(draw(count, seed))
    tallies: list[Tally] = []
    failures: list[Failure] = []
    for chosen in select(device):
        problems = drawn if chosen == "cpu" else [*drawn, long_walk(seed)]
        progress = track(
            problems,
            f"verifying on {chosen}",
            console=Console(stderr=True),
            transient=True,
            disable=not sys.stderr.isatty() or log.level() != 0,
        )
        found, failed = verify(names, chosen, progress)
        tallies, failures = tallies + found, failures + failed
    if as_json:
        rows = [t._asdict() | {"worst": {name: finite(ratio) for name, ratio in t.worst.items()}} for t in tallies]
        print(json.dumps({"providers": rows, "failures": [f._asdict() for f in failures]}))
    else:
        Output().print(table(tallies))
        for failure in failures[:LISTED]:
            print(f"{failure.provider}: {failure.problem}: {failure.reason}", file=sys.stderr)
        if len(failures) > LISTED:
            print(f"and {len(failures) - LISTED} more", file=sys.stderr)
    return int(bool(failures))


def table(tallies: Sequence[Tally]) -> Fitted:
    """Return a row for each provider: problems passed, and the largest error over its bound of each output."""
    devices = " and ".join(dict.fromkeys(tally.device for tally in tallies))
    remarks = [f"On {devices}. Largest error / bound of every output, against the float64 oracle."]
    remarks += [
        f"{t.provider} takes no weights: {t.left_out} problems with weights left out" for t in tallies if t.left_out
    ]
    return Fitted(
        [Block("", ("provider", "within bound", *LETTERS.values()), [_row(tally) for tally in tallies], remarks)]
    )


def _row(tally: Tally) -> Sequence[Text]:
    passed = Text(f"{tally.passed} of {tally.problems}", style="green" if tally.passed == tally.problems else "red")
    return Text(short(tally.provider)), passed, *(Text(f"{tally.worst[output]:.2f}") for output in LETTERS)
