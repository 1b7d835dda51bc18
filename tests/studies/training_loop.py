"""Time a step on this CPU alone and followed by an update of the parameters, whose threads spin into the next step.

python -m tests.studies.training_loop [--size 4096x4096 --rank 32] [--update sgd] [--threads 2] [--rounds 15]

PyTorch changes tensors of more than 32,768 elements with OpenMP's threads, which by default keep their cores for
milliseconds afterwards; with OMP_WAIT_POLICY=passive they sleep at once. Each loop runs in its own process. The
processes take turns, with a pause before each turn so that the others' threads fall asleep. Four fifths of the ratings
are observed.
"""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from tests.studies.host import Worker

LOOP = """
import sys, time
import torch
from kernels import mf_loss_and_grads

threads, m, n, rank = map(int, sys.argv[1:5])
torch.set_num_threads(threads)
torch.manual_seed(0)
parameters = [torch.randn(shape) / 4 for shape in ((m, rank), (n, rank), (m, 1), (n, 1), (1,))]
ratings, mask = torch.randint(1, 11, (m, n)) / 2, (torch.rand(m, n) < 0.8).to(torch.uint8)
optimizer = {
    "none": lambda: None,
    "sgd": lambda: torch.optim.SGD(parameters, lr=1e-9),
    "momentum": lambda: torch.optim.SGD(parameters, lr=1e-9, momentum=0.9),
    "adam": lambda: torch.optim.Adam(parameters, lr=1e-9),
}[sys.argv[5]]()

def epoch():
    loss, grads = mf_loss_and_grads(*parameters, ratings, mask, backend="native")
    if optimizer:
        for parameter, grad in zip(parameters, grads):
            parameter.grad = grad
        optimizer.step()

for line in sys.stdin:
    time.sleep(0.03)
    epoch(), epoch()
    start = time.perf_counter()
    for _ in range(int(line)):
        epoch()
    print((time.perf_counter() - start) / int(line), flush=True)
"""
PASSIVE = {"OMP_WAIT_POLICY": "passive"}
SIZES = ("1500x1500", "2048x2048", "4096x4096")
TURN_FLOPS = 2e10  # operations of a turn, a tenth of a second or so


def turns(size: str, rank: int, update: str, threads: int, rounds: int) -> list[list[float]]:
    """Return the seconds of an epoch in every round: the step alone, with an update, and that with passive waiting."""
    m, n = size.split("x")
    epochs = max(2, int(TURN_FLOPS / (6.0 * int(m) * int(n) * rank)))
    here = Path(__file__).parents[2]
    with ExitStack() as stack:
        workers = []
        for rule, variables in (("none", {}), (update, {}), (update, PASSIVE)):
            workers.append(Worker(here, LOOP, str(threads), m, n, str(rank), rule, **variables))
            stack.callback(workers[-1].close)
        times: list[list[float]] = [[] for _ in workers]
        order = list(zip(workers, times, strict=True))
        for _ in range(rounds):
            order.reverse()
            for worker, seconds in order:
                seconds.append(worker.seconds(epochs))
    return times


@click.command(help=__doc__)
@click.option("--size", "sizes", multiple=True, default=SIZES, show_default=True)
@click.option("--rank", type=click.IntRange(min=1), default=32, show_default=True)
@click.option("--update", type=click.Choice(["sgd", "momentum", "adam"]), default="sgd", show_default=True)
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=15, show_default=True)
def main(sizes: tuple[str, ...], rank: int, update: str, threads: int, rounds: int) -> None:
    table = Table("size", "step alone", "with update", "passive", "update / alone", "passive / alone")
    for size in sizes:
        alone, *others = times = turns(size, rank, update, threads, rounds)
        row = [f"{statistics.median(seconds) * 1e3:.3f} ms" for seconds in times]
        for seconds in others:
            ratios = [slower / step for slower, step in zip(seconds, alone, strict=True)]
            row.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
        table.add_row(size, *row)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
