"""Count the verdicts on identical code under two names while busy loops run beside it: any but `same` is wrong.

    python -m tests.studies.crowded                  # on this machine: 0, 1, 2 and 8 loops, 10 minutes
    python -m tests.studies.crowded --simulated      # a simulated machine that favours one side throughout

The loops run until the count ends. The processes of both sides are new in every comparison, since what the scheduler
does to one side may last as long as its process.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
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
from mfbench.results.crowding import crowding
from mfbench.stats import intervals
from tests.mfbench.measure.devices.simulated import Machine, Nature, SimulatedDevice, timing_hooks
from tests.studies.resolve import BASE, IDENTICAL

LOOP = "print(flush=True)\nwhile True: pass"
MARGIN = 0.02
SIMULATED_S = 0.9e-3


class Outcome(NamedTuple):
    """Verdict on one comparison."""

    ratio: intervals.Interval
    verdict: intervals.Verdict
    foreign_cores: float  # that other programs took
    reason: str | None

    @property
    def wrong(self) -> bool:
        """Return whether the verdict is a difference, which identical code does not have."""
        return self.verdict in ("faster", "slower")


@contextlib.contextmanager
def loops(count: int) -> Iterator[None]:
    """Run a number of busy loops."""
    started = [subprocess.Popen([sys.executable, "-c", LOOP], stdout=subprocess.PIPE) for _ in range(count)]
    try:
        for process in started:
            assert process.stdout
            process.stdout.readline()
        yield
    finally:
        for process in started:
            process.kill()
            process.communicate()


def measure(count: int, comparisons: int, threads: int, budget_s: float, size: str) -> Iterator[Outcome]:
    """Compare the step with itself beside busy loops.

    Args:
        count: of loops.
        comparisons: each in new processes.
        threads: of the step.
        budget_s: seconds for the rounds of a comparison.
        size: of the case, as `--size` takes it.
    """
    with tempfile.TemporaryDirectory() as folder, loops(count):
        for seed in range(1, 1 + comparisons):
            options = RunOptions(
                suite="square", device="cpu", provider=[IDENTICAL], baseline=BASE, margin=MARGIN, budget=budget_s,
                threads=threads, out=Path(folder) / "records.jsonl", axes={"size": [size], "seed": seed, "rank": 32},
            )  # fmt: skip
            for record in run_suite(options).records:
                if record.provider == IDENTICAL and record.speedup and record.timing:
                    ratio = intervals.Interval(record.speedup.ratio, *(end or np.nan for end in record.speedup.ci95))
                    foreign = record.timing.foreign_cores or 0.0
                    yield Outcome(ratio, record.speedup.verdict, foreign, record.speedup.reason)


def simulate(count: int, comparisons: int, threads: int, cores: int = 2) -> Iterator[Outcome]:
    """Compare a simulated step with itself, where one side has a core to itself and the other one all the loops.

    Only as many loops as there are other cores run elsewhere, since a scheduler leaves no core idle.

    Args:
        count: of loops, which share the cores with the threads in turn.
        comparisons: each on another machine.
        threads: of the step.
        cores: of the machine.
    """
    foreign = cores * count / max(cores, count + threads)
    for seed in range(1, 1 + comparisons):
        machine = Machine(seed, Nature())
        queues = {"a": 1, "b": max(2, count + threads - (cores - 1)) if count else 1}
        devices = {name: SimulatedDevice(machine, queue * SIMULATED_S) for name, queue in queues.items()}
        hooks = timing_hooks(
            machine, devices, background_cores=lambda machine=machine: max(0.0, machine.rng.normal(foreign, 0.05))
        )
        timing = time_in_rounds(hooks, "a", Goal(2.0), seed, dict.fromkeys(queues, SIMULATED_S))
        ratio = intervals.ratio_interval(timing.providers["a"].samples, timing.providers["b"].samples)
        measured, rounds = float(timing.background_cores.mean()), len(timing.providers["a"].samples)
        crowd = crowding(rounds, timing.disturbed, measured, {"cpus": cores, "threads": threads})
        verdict = intervals.verdict(ratio, MARGIN, crowd.slowdown if crowd else 1.0)
        yield Outcome(ratio, verdict, measured, crowd and str(crowd))


def line(count: int, threads: int, found: Sequence[Outcome]) -> str:
    """Return the verdicts beside a number of loops."""
    verdicts = Counter(outcome.verdict for outcome in found)
    farthest = max(max(outcome.ratio.estimate, 1 / outcome.ratio.estimate) for outcome in found)
    taken = np.median([outcome.foreign_cores for outcome in found])
    reason = next((outcome.reason for outcome in found if outcome.reason), "")
    return (
        f"{count} loops, {threads} threads: {', '.join(f'{n} {verdict}' for verdict, n in verdicts.most_common())}; "
        f"wrong {sum(outcome.wrong for outcome in found)} of {len(found)}; ratios up to {farthest:.2f}; "
        f"cores taken {taken:.2f}" + (f" ({reason})" if reason else "")
    )


@click.command(help=__doc__)
@click.option("--loops", "counts", type=click.IntRange(min=0), multiple=True, default=(0, 1, 2, 8), show_default=True)
@click.option("--comparisons", type=click.IntRange(min=1), default=10, show_default=True, help="For each number.")
@click.option("--threads", type=click.IntRange(min=1), multiple=True, default=(1, 2), show_default=True)
@click.option("--budget", type=float, default=2.0, show_default=True, help="Seconds of rounds for a comparison.")
@click.option("--size", default="256x256", show_default=True)
@click.option("--simulated", is_flag=True, help="On a simulated machine.")
def main(
    counts: Sequence[int], comparisons: int, threads: Sequence[int], budget: float, size: str, simulated: bool
) -> None:
    for number in threads:
        for count in counts:
            if simulated:
                found = list(simulate(count, comparisons, number))
            else:
                found = list(measure(count, comparisons, number, budget, size))
            click.echo(line(count, number, found))


if __name__ == "__main__":
    main()
