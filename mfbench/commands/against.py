"""`mfbench run --against REV`: measure this checkout and another revision in the same rounds."""

from __future__ import annotations

from dataclasses import replace

from mfbench.commands.compare import show
from mfbench.commands.run import INTERRUPTED, note_interruption
from mfbench.errors import NotComparable, UsageError
from mfbench.measure.options import RunOptions
from mfbench.measure.suite import run_suite
from mfbench.providers.revision import OF_THE_HARNESS, checkout
from mfbench.report.progress import ProgressBar
from mfbench.results.comparison import compare, measurement


def command(revision: str, options: RunOptions, as_json: bool) -> int:
    """Time every provider (default: `fused`) against itself at the revision; return the code of `mfbench compare`.

    Raises:
        UsageError: a name or a file that does not fit.
        NotComparable: the revision has nothing that this harness can measure.
    """
    providers = tuple(options.provider or ("fused",))
    for name in providers:
        if name in OF_THE_HARNESS:
            message = f"{name} is part of the harness, which is the same on both sides of --against"
            raise UsageError(message, code="bad-provider", argument="provider")
    with checkout(revision, providers) as other, ProgressBar() as bar:
        records, interrupted = run_suite(replace(options, provider=providers), bar, other)
    base = [
        measurement(record)._replace(provider=str(other.provider(record.provider)))
        for record in records
        if other.provider(record.provider) is not None
    ]
    new = [measurement(record) for record in records if other.provider(record.provider) is None]
    comparison = compare(base, new, options.margin, paired=True, names=(revision, "this checkout"))
    show(comparison, as_json)
    if interrupted:
        note_interruption(options.out)
        return INTERRUPTED
    if not comparison.timed and comparison.exit_code != 1:
        reasons = "; ".join(sorted({record.reason for record in records if record.reason}))
        message = f"no case was timed on both sides of --against {revision}: {reasons}"
        raise NotComparable(message, code="nothing-timed")
    return comparison.exit_code
