"""Measure how much data placement and process start change the ratio of two identical providers.

    python -m tests.studies.placements --size 200x300 --threads 2

Takes blocks of paired samples. Before each block nothing happens, the data moves, or both processes restart. If the
medians of the blocks scatter more than the noise within blocks explains, the placement matters.
"""

from __future__ import annotations

import random
import secrets

import click
import numpy as np

from mfbench.measure.rounds import SAMPLE_S
from mfbench.measure.worker.process import WorkerProcess
from mfbench.problems.cases import Case, parse_size
from mfbench.problems.inputs import draw
from mfbench.problems.shared import SharedInputs
from mfbench.stats import intervals

SIDES = ("base", "new")
MEDIAN_ERROR = 1.2533  # of the median of normal noise, in standard deviations / sqrt(n)


class Pair:
    """Two workers running the same provider on the same case."""

    def __init__(self, provider: str, case: Case, threads: int | None) -> None:
        self.case = case
        self.workers = {side: WorkerProcess(provider, "cpu", threads, 300.0) for side in SIDES}
        self.begin()
        seconds = max(self._prepared.values())
        self.loops = max(1, round(2 * SAMPLE_S / seconds))  # the same for both

    def begin(self) -> None:
        self.end()
        for worker in self.workers.values():
            worker.start()
        self._shared = SharedInputs(draw(self.case))
        location = self._shared.location
        self._prepared = {side: w.request("prepare", location).second_s for side, w in self.workers.items()}
        self.move()

    def move(self) -> None:
        number = secrets.randbelow(1 << 60)
        for worker in self.workers.values():
            worker.request("place", self.case, number)

    def end(self) -> None:
        for worker in self.workers.values():
            worker.stop()

    def block(self, rounds: int) -> np.ndarray:
        """Return the logarithms of new / base, shape (rounds,)."""
        logs = []
        for _ in range(rounds):
            seconds, core = {}, None
            for side in random.sample(SIDES, 2):
                reading = self.workers[side].request("sample", self.loops, core)[0]
                self.workers[side].request("rest")
                seconds[side], core = reading.seconds, reading.core
            logs.append(np.log(seconds["new"] / seconds["base"]))
        return np.array(logs)


def report(name: str, blocks: list[np.ndarray]) -> str:
    medians = np.array([np.median(block) for block in blocks])
    within = np.median([intervals.spread(block) for block in blocks]) * MEDIAN_ERROR / np.sqrt(len(blocks[0]))
    scatter = medians.std(ddof=1)
    beyond = np.sqrt(max(0.0, scatter**2 - within**2))
    return (
        f"{name:22} medians {medians.mean():+.2%} ± {scatter / np.sqrt(len(medians)):.2%}, scatter {scatter:.2%}, "
        f"by noise {within:.2%}, beyond it {beyond:.2%}"
    )


@click.command(help=__doc__)
@click.option("--provider", default="fused", show_default=True)
@click.option("--size", default="200x300", show_default=True)
@click.option("--threads", type=click.IntRange(min=1))
@click.option("--blocks", type=click.IntRange(min=3), default=12, show_default=True)
@click.option("--rounds", type=click.IntRange(min=3), default=15, show_default=True)
def main(provider: str, size: str, threads: int | None, blocks: int, rounds: int) -> None:
    m, n = parse_size(size)
    case = Case(suite="placements", m=m, n=n, rank=32, density=0.8, ratings_dtype="float32", mask="uint8",
                data="synthetic", seed=1)  # fmt: skip
    pair = Pair(provider, case, threads)
    try:
        for name, before in (
            ("nothing", lambda: None),
            ("data moved", pair.move),
            ("processes restarted", pair.begin),
        ):
            found = []
            for _ in range(blocks):
                before()
                pair.block(2)  # warms up
                found.append(pair.block(rounds))
            click.echo(report(name, found))
    finally:
        pair.end()


if __name__ == "__main__":
    main()
