"""`mfbench compare`: two files of measurements, from reading them to the table and the exit code."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mfbench import log
from mfbench.measure.recording import finite
from mfbench.report.console import Output
from mfbench.report.terminal import WIDEST, seconds, short
from mfbench.results.comparison import Comparison, Measurement, Outcome, Pair
from mfbench.results.judging import described, judged, read, tell

OUTCOME_STYLE: dict[Outcome, str] = {
    "faster": "green", "slower": "red", "same": "cyan", "inconclusive": "yellow", "broken": "red", "mended": "green",
    "failing": "dim",
}  # fmt: skip
LISTED = 20  # missing or new cases, at most, are listed in the table's foot; --json has all


def command(base: Path, new: Path, margin: float, force: bool, as_json: bool) -> int:
    """Compare two files, print, and give the exit code.

    Raises:
        UsageError: a file cannot be read.
        NotComparable: another schema, two kinds of file, or another environment without `force`.
    """
    comparison = judged((str(base), *read(base)), (str(new), *read(new)), margin, force)
    tell(f"another environment: {described(difference)}" for difference in comparison.environment)
    show(comparison, str(base), str(new), as_json)
    if comparison.exit_code == 4:
        tell([f"nothing to compare: {base} and {new} have no case in common that was measured on both sides"])
    return comparison.exit_code


def show(comparison: Comparison, base: str, new: str, as_json: bool) -> None:
    """The comparison on stdout, as JSON or as a table."""
    if as_json:
        print(json.dumps({"base": base, "new": new, **as_dict(comparison)}))
        return
    console = Output()
    console.print(table(comparison))
    if log.level() >= 0:
        console.print(legend(comparison), style="dim")


def as_dict(comparison: Comparison) -> dict[str, Any]:
    """Everything that was found, for machines; `ratio` and `ci` are base / new."""
    return {
        "margin": comparison.margin,
        "paired": comparison.paired,
        "exit_code": comparison.exit_code,
        "outcomes": Counter(pair.outcome for pair in comparison.pairs),
        "cases": [
            {
                **_named(pair.new),
                "base_status": pair.base.status,
                "new_status": pair.new.status,
                "base_median_s": finite(pair.base.median_s),
                "new_median_s": finite(pair.new.median_s),
                "ratio": pair.ratio and finite(pair.ratio.estimate),
                "ci": pair.ratio and [finite(pair.ratio.low), finite(pair.ratio.high)],
                "outcome": pair.outcome,
                "reason": pair.new.reason or pair.base.reason,
            }
            for pair in comparison.pairs
        ],
        "missing": [_named(m) for m in comparison.missing],
        "added": [_named(m) for m in comparison.added],
        "environment": [difference._asdict() for difference in comparison.environment],
    }


def _named(m: Measurement) -> dict[str, Any]:
    case = m.case if isinstance(m.case, str) else m.case.model_dump(mode="json")
    return {"case": case, "provider": m.provider, "device": m.device}


def table(comparison: Comparison) -> RenderableType:
    """A block a case and a line a provider; then the sum of it, and what only one side has."""
    names = max((len(short(pair.new.provider)) for pair in comparison.pairs), default=0)
    blocks = groupby(comparison.pairs, key=lambda pair: pair.new.label)
    parts = [part for label, pairs in blocks for part in _block(label, list(pairs), min(names, 30))]
    counts = Counter(pair.outcome for pair in comparison.pairs)
    summary = ", ".join(f"{counts[outcome]} {outcome}" for outcome in OUTCOME_STYLE if counts[outcome])
    parts.append(Text(f"\n{len(comparison.pairs)} compared{': ' if summary else ''}{summary}", style="bold"))
    for title, alone in (("missing from the new side", comparison.missing), ("new", comparison.added)):
        if alone:
            lines = [
                f"  {m.label} · {short(m.provider)}{'' if m.status == 'ok' else f': {m.status}'}"
                for m in alone[:LISTED]
            ]
            more = [f"  and {len(alone) - LISTED} more"] if len(alone) > LISTED else []
            parts.append(Text("\n".join([f"{len(alone)} {title}, not judged:", *lines, *more])))
    return Group(*parts)


def _block(label: str, pairs: Sequence[Pair], name_width: int) -> Iterable[RenderableType]:
    yield Text(f"\n{label}", style="bold")
    grid = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    grid.add_column("provider", min_width=name_width, overflow="fold")
    for side in ("base", "new"):
        grid.add_column(side, justify="right", min_width=8, no_wrap=True)
    grid.add_column("× base", justify="right", min_width=20, no_wrap=True)
    grid.add_column("verdict", min_width=12, no_wrap=True)
    reasons = []
    for pair in pairs:
        grid.add_row(
            Text(short(pair.new.provider)),
            *(seconds(m.median_s) if m.median_s is not None else m.status for m in (pair.base, pair.new)),
            Text(_interval(pair)),
            Text(pair.outcome, style=OUTCOME_STYLE[pair.outcome]),
        )
        for side, m in (("base", pair.base), ("new", pair.new)):
            if m.reason:
                reasons.append(f"  {side} {short(m.provider)}: {m.reason}")
    yield grid
    if reasons:
        yield Text("\n".join(reasons), style="dim")


def _interval(pair: Pair) -> str:
    if pair.ratio is None:
        return ""
    if not np.isfinite(pair.ratio.high):
        return f"{pair.ratio.estimate:.3g} [too few rounds]"
    if pair.ratio.high > WIDEST * pair.ratio.low:
        return f"{pair.ratio.estimate:.3g} [too noisy]"
    estimate, low, high = (f"{ratio:.3f}" if ratio < 10 else f"{ratio:.3g}" for ratio in pair.ratio)
    return f"{estimate} [{low}, {high}]"


def legend(comparison: Comparison) -> str:
    """What the columns mean, and what they cannot tell."""
    together = f", which holds for all {comparison.timed} together at 95 %" if comparison.timed > 1 else " at 95 %"
    meaning = (
        f"\n× base: how many times as fast as the base, with an interval{together}. faster, slower: all of it lies "
        f"beyond the margin of {comparison.margin:.3g}; same: all of it within; inconclusive: neither."
    )
    if any(pair.ratio and (pair.base.busy or pair.new.busy) for pair in comparison.pairs):
        meaning += " Where other programs ran in half of a side's rounds or more, only a factor of 2 is a verdict."
    if comparison.paired:
        return f"{meaning} Both sides took turns in the same rounds."
    return (
        f"{meaning} The two sides were measured in different runs: what changed on the machine in between looks like "
        "a change of the code. `mfbench run --against REV` measures both sides in the same rounds."
    )
