"""`mfbench run --against REV`: this checkout and another revision, measured in the same rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mfbench.commands.compare import show
from mfbench.commands.run import run_suite, tell_interrupted
from mfbench.errors import NotComparable, UsageError
from mfbench.providers.revision import OWN, checkout
from mfbench.results.comparison import compare, measurement


def command(
    revision: str,
    suite: str,
    device: str | None,
    provider: Sequence[str] | None,
    overrides: Mapping[str, Any],
    out: Path,
    resume: bool,
    threads: int | None,
    margin: float,
    budget_s: float,
    time_limit_s: float,
    as_json: bool,
) -> int:
    """Every provider (default: `fused`) against itself at the revision; the exit code of `mfbench compare`.

    Raises:
        UsageError: a name, a file or a value that does not fit.
        NotComparable: the revision has nothing that this harness can measure.
    """
    taking_part = provider or ["fused"]
    for name in taking_part:
        if name in OWN:
            raise UsageError(f"--provider: {name} is part of the harness, which is the same on both sides of --against")
    with checkout(revision, taking_part) as other:
        records, interrupted = run_suite(
            suite, device, taking_part, overrides, out, resume, threads, "", margin, budget_s, time_limit_s, other
        )
        base = [record for record in records if other.provider(record.provider) is not None]
        comparison = compare(
            [measurement(record)._replace(provider=str(other.provider(record.provider))) for record in base],
            [measurement(record) for record in records if other.provider(record.provider) is None],
            margin,
            paired=True,
            names=(revision, "this checkout"),
        )
    show(comparison, as_json)
    if interrupted:
        tell_interrupted(out)
        return 130
    if not comparison.timed and comparison.exit_code != 1:
        reasons = {record.reason for record in records if record.reason}
        raise NotComparable(f"no case was timed on both sides of --against {revision}: {'; '.join(sorted(reasons))}")
    return comparison.exit_code
