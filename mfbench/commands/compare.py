"""`mfbench compare`: print the comparison of two files as a table or JSON."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.text import Text

from mfbench import log
from mfbench.errors import NotComparable
from mfbench.report import terminal
from mfbench.report.derived import would_decide
from mfbench.report.labels import interval, seconds, short
from mfbench.report.terminal import Block, Fitted, Output
from mfbench.results.comparison import OUTCOMES, Comparison, Measurement, Pair
from mfbench.results.judging import judged, read
from mfbench.wording import counted

STYLE = {**terminal.STYLE, "broken": "red", "fixed": "green", "failing": "dim"}
MOST_LISTED = 20  # missing or new cases below the table; --json has all of them


def command(base: Path, new: Path, margin: float, force: bool, as_json: bool, allow_missing: bool = False) -> int:
    """Compare two files, print the result, and return the exit code.

    Raises:
        UsageError: a file cannot be read, or the margin is no fraction.
        NotComparable: an unknown schema, different tools, different environments without `force`; after printing, no
            case in common, or cases missing from the new file without `allow_missing`.
    """
    comparison = judged(read(base), read(new), margin, force, allow_missing)
    for difference in comparison.environment:
        log.note(f"different environment: {difference}")
    show(comparison, as_json)
    if comparison.exit_code == 4:
        if not comparison.timed:
            message = f"{base} and {new} have no case in common that was timed on both sides"
            raise NotComparable(message, code="nothing-timed")
        missing = counted(len(comparison.missing), "case")
        message = f"{new} lacks {missing} of {base} (--allow-missing accepts that)"
        raise NotComparable(message, code="missing-cases")
    return comparison.exit_code


def show(comparison: Comparison, as_json: bool) -> None:
    """Print a comparison on standard output."""
    if as_json:
        print(json.dumps(as_dict(comparison)))
        return
    console = Output()
    console.print(Fitted(blocks(comparison)))
    console.print(_summary(comparison))
    if log.level() >= 0:
        console.print(legend(comparison), style="dim")


def as_dict(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison for `--json`; `ratio` and `ci` are base / new, times are in seconds."""
    return {
        "base": comparison.base,
        "new": comparison.new,
        "margin": comparison.margin,
        "paired": comparison.paired,
        "exit_code": comparison.exit_code,
        "outcomes": Counter(pair.outcome for pair in comparison.pairs),
        "cases": [
            {
                **_named(pair.new),
                "base_status": pair.base.status,
                "new_status": pair.new.status,
                "base_median_s": _finite(pair.base.median_s),
                "new_median_s": _finite(pair.new.median_s),
                "ratio": pair.ratio and _finite(pair.ratio.estimate),
                "ci": pair.ratio and [_finite(pair.ratio.low), _finite(pair.ratio.high)],
                "outcome": pair.outcome,
                "reason": pair.new.reason or pair.base.reason or pair.reason,
                "needs_s": pair.needs_s,
            }
            for pair in comparison.pairs
        ],
        "missing": [_named(m) for m in comparison.missing],
        "added": [_named(m) for m in comparison.added],
        "environment": [difference._asdict() for difference in comparison.environment],
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _named(m: Measurement) -> dict[str, Any]:
    case = m.case if isinstance(m.case, str) else m.case.model_dump(mode="json")
    return {"case": case, "provider": m.provider, "device": m.device}


def blocks(comparison: Comparison) -> list[Block]:
    """Return the table of a comparison: a block for each case, a row for each provider."""
    groups = groupby(comparison.pairs, key=lambda pair: pair.new.label)
    return [_block(label, list(pairs)) for label, pairs in groups]


def _block(label: str, pairs: Sequence[Pair]) -> Block:
    reasons = [
        f"{side} {short(m.provider)}: {m.reason}"
        for pair in pairs
        for side, m in (("base", pair.base), ("new", pair.new))
        if m.reason
    ]
    remarks = [
        f"{short(pair.new.provider)}: {what}"
        for pair in pairs
        if pair.outcome == "inconclusive" and (what := would_decide(pair.reason, pair.needs_s, pair.new.took_s))
    ]
    columns = ("provider", "base", "new", "× base", "verdict")
    return Block(label, columns, [_row(pair) for pair in pairs], [*reasons, *remarks])


def _row(pair: Pair) -> Sequence[Text]:
    times = (Text(seconds(m.median_s) if m.median_s is not None else m.status) for m in (pair.base, pair.new))
    verdict = Text(OUTCOMES[pair.outcome], style=STYLE[pair.outcome])
    return Text(short(pair.new.provider)), *times, Text(_interval(pair)), verdict


def _interval(pair: Pair) -> str:
    if pair.ratio is None:
        return ""
    estimate, low, high = pair.ratio
    digits = ".3f" if estimate < 10 else ".3g"
    return f"{estimate:{digits}} {interval(low, high, digits)}"


def _summary(comparison: Comparison) -> Text:
    counts = Counter(pair.outcome for pair in comparison.pairs)
    outcomes = ", ".join(f"{counts[outcome]} {words}" for outcome, words in OUTCOMES.items() if counts[outcome])
    summary = Text(f"\n{len(comparison.pairs)} compared{': ' if outcomes else ''}{outcomes}", style="bold")
    lines = [
        *_listed("missing from the new side", comparison.missing),
        *_listed("only on the new side, not judged", comparison.added),
    ]
    return Text("\n").join([summary, *map(Text, lines)])


def _listed(title: str, measurements: Sequence[Measurement]) -> list[str]:
    if not measurements:
        return []
    lines = [
        f"  {m.label} · {short(m.provider)}{'' if m.status == 'ok' else f': {m.status}'}"
        for m in measurements[:MOST_LISTED]
    ]
    more = len(measurements) - MOST_LISTED
    return [f"{len(measurements)} {title}:", *lines, *([f"  and {more} more"] if more > 0 else [])]


def legend(comparison: Comparison) -> str:
    """Explain the columns and the limits of the verdicts."""
    jointly = f"intervals that hold jointly for all {comparison.timed}" if comparison.timed > 1 else "an interval"
    meaning = (
        f"\n× base: speed-up over the base, with {jointly} at 95 %. faster, slower: the whole interval lies beyond the "
        f"margin of {comparison.margin:.3g}; same: it lies within; inconclusive: neither."
    )
    if any(pair.ratio and (pair.base.crowding or pair.new.crowding) for pair in comparison.pairs):
        meaning += (
            " Where other programs disturbed at least half of a side's rounds, only a factor that they cannot have "
            "caused is a verdict."
        )
    if comparison.paired:
        return f"{meaning} Both sides took turns in the same rounds."
    return (
        f"{meaning} The sides were measured in different runs, so a change of the machine in between looks like a "
        "change of the code; `mfbench run --against REV` measures both sides in the same rounds."
    )
