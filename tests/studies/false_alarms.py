"""Count wrong verdicts: on identical providers, and on providers slowed down by a known fraction.

    python -m tests.studies.false_alarms --comparisons 400                  # identical: any verdict is false
    python -m tests.studies.false_alarms --comparisons 100 --slowdown 5     # 5 % slower (or 3): no verdict is a miss

A comparison is what `mfbench run` does for a case: two worker processes, the gate, rounds of timing within the budget,
the gate again. New processes start every `--suite-of` comparisons, as for every suite. The two records of a comparison
are written when it ends; the same command continues an interrupted count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
from scipy.stats import binomtest

from mfbench.measure.case import measure_case
from mfbench.measure.recording import Origin
from mfbench.measure.worker.process import WorkerProcess
from mfbench.problems.cases import Case, parse_size
from mfbench.results import comparison
from mfbench.results.records import Record, read
from mfbench.results.writer import Writer
from mfbench.stats import intervals

SLOWED = Path(__file__).with_name("slowed.py")
FALSE = {"faster", "slower"}


class Count(NamedTuple):
    """Settings of a count."""

    comparisons: int
    provider: str
    slowdown: int  # per cent
    sizes: tuple[str, ...]
    suite_of: int
    threads: int | None
    margin: float
    budget_s: float

    @property
    def name(self) -> str:
        """Name of the settings that a single comparison depends on."""
        sizes, threads = ",".join(self.sizes), self.threads or "all"
        return (
            f"{self.provider} slowed by {self.slowdown} %, {sizes}, {threads} threads, {self.margin}, {self.budget_s} s"
        )


def comparisons(count: Count, first: int) -> Iterator[tuple[Record, Record]]:
    """Yield both records of each comparison, from number `first` on."""
    for start in range(first, count.comparisons, count.suite_of):
        names = {"base": count.provider, "new": count.provider}
        if count.slowdown:
            names = {"base": f"{SLOWED}:fused", "new": f"{SLOWED}:slower_by_{count.slowdown}_percent"}
        workers = {side: WorkerProcess(name, "cpu", count.threads, 300.0) for side, name in names.items()}
        try:
            for worker in workers.values():
                worker.start()
            for number in range(start, min(start + count.suite_of, count.comparisons)):
                m, n = parse_size(count.sizes[number % len(count.sizes)])
                case = Case(suite="false alarms", m=m, n=n, rank=32, density=0.8, ratings_dtype="float32", mask="uint8",
                            data="synthetic", seed=number)  # fmt: skip
                records = measure_case(
                    Origin(count.name, case, "cpu"), workers,
                    baseline="base", margin=count.margin, budget_s=count.budget_s,
                )  # fmt: skip
                yield records["base"], records["new"]
        finally:
            for worker in workers.values():
                worker.stop()


def earlier(out: Path, count: Count) -> list[tuple[Record, Record]]:
    """Return the comparisons with these settings that the file holds."""
    if not out.exists():
        return []
    found = [record for record in read(out)[0] if record.run_id == count.name]
    return list(zip(found[::2], found[1::2], strict=False))[: count.comparisons]


def alarms(suite: list[tuple[Record, Record]], margin: float) -> int:
    """Count faster and slower verdicts of a whole suite, with family-wise intervals."""
    base, new = ([comparison.measurement(pair[side])._replace(provider="") for pair in suite] for side in (0, 1))
    return sum(pair.outcome in FALSE for pair in comparison.compare(base, new, margin, paired=True).pairs)


def of(found: int, count: int, what: str) -> str:
    """Return a proportion with its exact binomial interval (Clopper and Pearson, 1934)."""
    if not count:
        return f"{what}: none were counted"
    low, high = binomtest(found, count).proportion_ci(intervals.CONFIDENCE, method="exact")
    return f"{what}: {found} of {count}, {found / count:.1%} [{low:.1%}, {high:.1%}]"


def line(number: int, base: Record, new: Record) -> str:
    """Return a comparison as one line."""
    if new.speedup is None or new.timing is None:
        return f"{number:4} not timed: {new.reason or base.reason}"
    low, high = new.speedup.ci95
    interval = f"[{low:.4f}, {high:.4f}]" if low and high else "[too few rounds]"
    return (
        f"{number:4} {new.case.m:5}×{new.case.n:<5} {new.timing.median_s * 1e3:8.3f} ms {new.timing.placements:4} "
        f"placements  {new.speedup.ratio:.4f} {interval}  {new.speedup.verdict}"
        + (f"  disturbed {new.timing.disturbed}" if new.timing.disturbed else "")
    )


def summary(pairs: Sequence[tuple[Record, Record]], count: Count) -> Iterator[str]:
    timed = [(base, new) for base, new in pairs if base.timing and new.timing and new.speedup]
    verdicts = Counter(new.speedup.verdict for _, new in timed if new.speedup)
    yield f"\n{count.name}: {len(pairs)} comparisons, {len(pairs) - len(timed)} not timed"
    yield ", ".join(f"{number} {verdict}" for verdict, number in verdicts.most_common())
    ratios = np.array([new.speedup.ratio for _, new in timed if new.speedup])
    bounds = [new.speedup.ci95 for _, new in timed if new.speedup]
    widths = [(high - low) / 2 for low, high in bounds if low and high]
    if not widths:
        return
    spread, width = intervals.spread(ratios), np.median(widths)
    yield f"ratio: median {np.median(ratios):.4f}, spread {spread:.4f}; half width: {width:.4f}"
    suites = [timed[i : i + count.suite_of] for i in range(0, len(timed) - count.suite_of + 1, count.suite_of)]
    found = [alarms(suite, count.margin) for suite in suites]
    if count.slowdown:
        yield of(verdicts["slower"], len(timed), "found slower")
        yield of(sum(found), len(suites) * count.suite_of, f"found slower in suites of {count.suite_of}, family-wise")
        return
    covered = sum(low <= 1 <= high for low, high in bounds if low and high)
    yield of(covered, len(widths), "intervals that hold 1")
    yield of(sum(verdicts[verdict] for verdict in FALSE), len(timed), "false alarms")
    yield of(sum(map(bool, found)), len(suites), f"suites of {count.suite_of} with a false alarm, family-wise")


@click.command(help=__doc__)
@click.option("--comparisons", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--slowdown", type=click.Choice(["0", "3", "5"]), default="0", show_default=True, help="Per cent.")
@click.option("--provider", default="fused", show_default=True, help="The identical pair's.")
@click.option("--size", multiple=True, default=["512x512", "1024x1024", "2048x2048"], show_default=True)
@click.option("--suite-of", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--threads", type=click.IntRange(min=1))
@click.option("--margin", type=float, default=0.02, show_default=True)
@click.option("--budget", "budget_s", type=float, default=5.0, show_default=True, help="Seconds for a comparison.")
@click.option("--out", type=click.Path(path_type=Path), default="false-alarms.jsonl", show_default=True)
def main(out: Path, size: tuple[str, ...], slowdown: str, provider: str, **given: Any) -> None:
    if slowdown != "0" and provider != "fused":
        raise click.UsageError("--slowdown applies to the fused step: leave --provider out")
    count = Count(provider=provider, slowdown=int(slowdown), sizes=size, **given)
    pairs = earlier(out, count)
    if pairs:
        click.echo(f"{len(pairs)} comparisons are already in {out}")
    writer = Writer(out)
    try:
        for base, new in comparisons(count, len(pairs)):
            writer.append([base, new])
            pairs.append((base, new))
            click.echo(line(len(pairs), base, new))
    finally:
        writer.close()
        for text in summary(pairs, count):
            click.echo(text)


if __name__ == "__main__":
    main()
