"""Count the verdicts of `--resolve`: on identical code under two names, and on code slowed down by 5 %.

    python -m tests.studies.resolve                  # on this machine: 4 runs of 5 cases, 20 minutes at most
    python -m tests.studies.resolve --simulated      # timings of a simulated machine whose truth is known

Each case times a step, the same step under another name, and the step slowed down. The first pair should be called the
same, the second slower. The seconds that the rounds were said to take stand beside those that they took.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np

from mfbench.measure.options import RunOptions
from mfbench.measure.planning import Goal
from mfbench.measure.rounds import time_in_rounds
from mfbench.measure.suite import run_suite
from mfbench.report.progress import ProgressBar
from mfbench.results.records import Record
from mfbench.stats import intervals
from tests.mfbench.measure.devices.simulated import Machine, Nature, SimulatedDevice, timing_hooks

SLOWED = Path(__file__).with_name("slowed.py")
BASE, IDENTICAL, SLOWER = (f"{SLOWED}:{name}" for name in ("fused", "fused_again", "slower_by_5_percent"))
EXPECTED = {IDENTICAL: "same", SLOWER: "slower"}
SIMULATED_S = {BASE: 0.9e-3, IDENTICAL: 0.9e-3, SLOWER: 0.945e-3}
SIZES = ("192x256", "256x256", "320x384", "384x512", "512x512")  # the cases of a run


class Outcome(NamedTuple):
    """Verdict on one provider in one case."""

    case: str
    provider: str
    ratio: intervals.Interval  # at 95 %, of this ratio alone
    verdict: intervals.Verdict
    said_s: float
    took_s: float

    @property
    def expected(self) -> bool:
        """Return whether the verdict is the true one."""
        return self.verdict == EXPECTED[self.provider]

    @property
    def wrong(self) -> bool:
        """Return whether the verdict is another than the true one; undecided is not wrong."""
        return not self.expected and self.verdict != "inconclusive"


def simulate(nature: Nature, cases: int, goal: Goal, first_seed: int = 1) -> list[Outcome]:
    """Time the three providers on a simulated machine in each of a number of cases."""
    found = []
    for seed in range(first_seed, first_seed + cases):
        machine = Machine(seed, nature)
        devices = {name: SimulatedDevice(machine, seconds - nature.cold_s) for name, seconds in SIMULATED_S.items()}
        timing = time_in_rounds(timing_hooks(machine, devices), BASE, goal, seed, SIMULATED_S)
        for name in EXPECTED:
            pair = timing.providers[BASE].samples, timing.providers[name].samples
            verdict = intervals.verdict(intervals.ratio_interval(*pair, goal.confidence), goal.margin)
            ratio = intervals.ratio_interval(*pair)
            found.append(Outcome(f"seed {seed}", name, ratio, verdict, timing.planned_s, timing.took_s))
    return found


def measure(runs: int, resolve: float, budget_s: float, threads: int, out: Path) -> Iterator[Record]:
    """Run the cases, each time with another seed, and yield the records."""
    for seed in range(1, 1 + runs):
        options = RunOptions(
            suite="square", device="cpu", provider=[IDENTICAL, SLOWER], baseline=BASE, resolve=resolve,
            budget=budget_s, threads=threads, out=out, axes={"size": list(SIZES), "seed": seed, "rank": 32},
        )  # fmt: skip
        with ProgressBar() as bar:
            yield from run_suite(options, bar).records


def outcomes(records: Sequence[Record]) -> list[Outcome]:
    """Return the verdicts of a run, without the cases that were not timed."""
    return [
        Outcome(
            record.case.label,
            record.provider,
            intervals.Interval(record.speedup.ratio, *(end or float("nan") for end in record.speedup.ci95)),
            record.speedup.verdict,
            record.timing.planned_s or float("nan"),
            record.timing.took_s or float("nan"),
        )
        for record in records
        if record.provider in EXPECTED and record.speedup and record.timing
    ]


def lines(found: Sequence[Outcome]) -> Iterator[str]:
    """Yield one line for each case and provider."""
    for outcome in found:
        ratio, low, high = outcome.ratio
        name = "identical" if outcome.provider == IDENTICAL else "5 % slower"
        yield (
            f"{outcome.case:64} {name:10} {ratio:.4f} [{low:.4f}, {high:.4f}] {outcome.verdict:12} "
            f"said {outcome.said_s:5.1f} s, took {outcome.took_s:5.1f} s"
        )


def summary(found: Sequence[Outcome]) -> Iterator[str]:
    """Yield the counts of verdicts, and the seconds that were said and taken."""
    for provider, name in ((IDENTICAL, "identical"), (SLOWER, "5 % slower")):
        own = [outcome for outcome in found if outcome.provider == provider]
        verdicts = Counter(outcome.verdict for outcome in own)
        others = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.items() if verdict != EXPECTED[provider])
        yield f"{name:10} {EXPECTED[provider]:6} in {verdicts[EXPECTED[provider]]} of {len(own)}" + (
            f"; {others}" if others else ""
        )
    yield f"wrong      {sum(outcome.wrong for outcome in found)} of {len(found)}"
    cases = [outcome for outcome in found if outcome.provider == IDENTICAL]
    said, took = (np.array([getattr(outcome, name) for outcome in cases]) for name in ("said_s", "took_s"))
    if cases:
        low, middle, high = np.quantile(took / said, [0, 0.5, 1])
        yield (
            f"rounds     said {said.sum():.0f} s, took {took.sum():.0f} s in all; took / said: median {middle:.2f}, "
            f"from {low:.2f} to {high:.2f}"
        )


@click.command(help=__doc__)
@click.option("--runs", type=click.IntRange(min=1), default=4, show_default=True, help="Of 5 cases each.")
@click.option("--resolve", type=float, default=0.02, show_default=True)
@click.option("--budget", type=float, default=45.0, show_default=True, help="Most seconds of rounds for a case.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--simulated", is_flag=True, help="On a simulated machine.")
@click.option("--out", type=click.Path(path_type=Path), help="Keep the records.")
def main(runs: int, resolve: float, budget: float, threads: int, simulated: bool, out: Path | None) -> None:
    if simulated:
        confidence = intervals.family_confidence(len(SIZES) * len(EXPECTED))
        found = simulate(Nature(), runs * len(SIZES), Goal(budget, resolve, confidence=confidence))
    else:
        with tempfile.TemporaryDirectory() as folder:
            records = out or Path(folder) / "records.jsonl"
            found = outcomes(list(measure(runs, resolve, budget, threads, records)))
    for text in (*lines(found), "", *summary(found)):
        click.echo(text)


if __name__ == "__main__":
    main()
