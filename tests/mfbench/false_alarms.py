"""How often the harness is wrong: verdicts on identical providers, and on providers that are slower by a known part.

    python -m tests.mfbench.false_alarms --comparisons 400                  # identical: any faster or slower is false
    python -m tests.mfbench.false_alarms --comparisons 100 --slowdown 5     # 5 % slower (or 3): all else is a miss

A comparison is what `mfbench run` does for a case: two worker processes, the gate, rounds of timing within the budget,
the gate again. The processes are new every `--suite-of` comparisons, as they are for every suite.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
from scipy.stats import beta

from mfbench import compare, stats
from mfbench.cases import Case, parse_size
from mfbench.isolation import WorkerProcess
from mfbench.records import Record
from mfbench.results import Origin
from mfbench.trial import Trial

SLOWED = Path(__file__).with_name("slowed.py")
OTHER = {0: None, 3: f"{SLOWED}:slower_by_3_percent", 5: f"{SLOWED}:slower_by_5_percent"}
FALSE = {"faster", "slower"}


def comparisons(
    count: int, provider: str, slowdown: int, sizes: list[tuple[int, int]], suite_of: int, threads: int | None,
    margin: float, budget_s: float,
) -> Iterator[tuple[Record, Record]]:  # fmt: skip
    """Records of the provider and of the other one, for one case after another."""
    for start in range(0, count, suite_of):
        workers = {"base": WorkerProcess(provider, "cpu", threads, 300.0),
                   "new": WorkerProcess(OTHER[slowdown] or provider, "cpu", threads, 300.0)}  # fmt: skip
        try:
            for worker in workers.values():
                worker.start()
            for number in range(start, min(start + suite_of, count)):
                m, n = sizes[number % len(sizes)]
                case = Case(suite="false alarms", m=m, n=n, rank=32, density=0.8, ratings_dtype="float32", mask="uint8",
                            data="synthetic", seed=number)  # fmt: skip
                records = Trial(Origin("", case, "cpu"), workers, lambda _: None).run("base", margin, budget_s)
                yield records["base"], records["new"]
        finally:
            for worker in workers.values():
                worker.stop()


def alarms(suite: list[tuple[Record, Record]], margin: float) -> int:
    """Faster or slower in the comparison of the whole suite, with its family-wise intervals."""
    base, new = ([compare.measurement(pair[side])._replace(provider="") for pair in suite] for side in (0, 1))
    return sum(pair.outcome in FALSE for pair in compare.compare(base, new, margin, paired=True).pairs)


def upper_bound(found: int, count: int) -> float:
    """Of the rate, at 95 % (Clopper and Pearson, 1934)."""
    return float(beta.ppf(0.95, found + 1, count - found)) if found < count else 1.0


@click.command(help=__doc__)
@click.option("--comparisons", "count", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--slowdown", type=click.Choice(["0", "3", "5"]), default="0", show_default=True, help="Per cent.")
@click.option("--provider", default="fused", show_default=True, help="The identical pair's.")
@click.option("--size", multiple=True, default=["512x512", "1024x1024", "2048x2048"], show_default=True)
@click.option("--suite-of", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--threads", type=click.IntRange(min=1))
@click.option("--margin", type=float, default=0.02, show_default=True)
@click.option("--budget", type=float, default=5.0, show_default=True)
def main(
    count: int, slowdown: str, provider: str, size: tuple[str, ...], suite_of: int, threads: int | None,
    margin: float, budget: float,
) -> None:  # fmt: skip
    if slowdown != "0" and provider != "fused":
        raise click.UsageError("--slowdown is of the fused step: leave --provider out")
    sizes = [parse_size(text) for text in size]
    verdicts: Counter[str] = Counter()
    estimates, widths, suites, suite = [], [], [], list[tuple[Record, Record]]()
    for base, new in comparisons(count, provider, int(slowdown), sizes, suite_of, threads, margin, budget):
        if new.speedup is None or new.timing is None or base.timing is None:
            verdicts["not timed"] += 1
            click.echo(f"{sum(verdicts.values()):4} not timed: {new.reason or base.reason}")
            continue
        low, high = (bound if bound is not None else math.nan for bound in new.speedup.ci95)
        verdicts[new.speedup.verdict] += 1
        estimates.append(new.speedup.ratio)
        widths.append((high - low) / 2)
        suite.append((base, new))
        if len(suite) == suite_of:
            suites.append(alarms(suite, margin))
            suite = []
        click.echo(
            f"{sum(verdicts.values()):4} {new.case.m:5}×{new.case.n:<5} {new.timing.median_s * 1e3:8.3f} ms "
            f"{new.timing.rounds:4} rounds  {new.speedup.ratio:.4f} [{low:.4f}, {high:.4f}]  {new.speedup.verdict}",
        )
    if not estimates:
        raise SystemExit("nothing was timed")
    spread = stats.spread(np.array(estimates))
    click.echo(f"\n{count} comparisons, margin {margin}: " + ", ".join(f"{n} {v}" for v, n in verdicts.most_common()))
    click.echo(f"ratio: median {np.median(estimates):.4f}, spread {spread:.4f}; half width: {np.nanmedian(widths):.4f}")
    if slowdown == "0":
        false = sum(verdicts[verdict] for verdict in FALSE)
        click.echo(f"false alarms: {false} of {count} (at most {upper_bound(false, count):.1%} at 95 % confidence)")
        click.echo(f"suites of {suite_of} with a false alarm among them: {sum(map(bool, suites))} of {len(suites)}")
    else:
        click.echo(f"found slower: {verdicts['slower']} of {count}")
        click.echo(f"found slower in suites of {suite_of}: {sum(suites)} of {len(suites) * suite_of}")


if __name__ == "__main__":
    main()
