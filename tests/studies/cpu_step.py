"""Time dense steps on this CPU, here and in another checkout, in turns, beside PyTorch's square product.

python -m tests.studies.cpu_step [--against PATH] [--flags=-mno-avx512f] [--threads 2] [--rounds 15]

`--case MxN,RANK,RATINGS,MASK`, repeatable, replaces the usual cases; ratings `codes` are encoded. The compiler gets the
flags last, so that they narrow the vectors. One thread is timed by its CPU time, which other load disturbs less. Rates
count three products; four fifths of the ratings are observed.
"""

from __future__ import annotations

import os
import shlex
import statistics
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import click
from rich.console import Console
from rich.table import Table

from kernels.cache import cache_folder
from kernels.cpu.build import find_compiler
from mfbench.measure.roofline import GEMM_SIZE
from tests.studies.host import Worker

STEP = """
import sys, time
import torch
from kernels import encode_ratings, mf_loss_and_grads

clock = time.process_time if sys.argv[1] == "1" else time.perf_counter
threads, m, n, rank = map(int, sys.argv[1:5])
ratings_dtype, mask_dtype = sys.argv[5:]
torch.set_num_threads(threads)
torch.manual_seed(0)
parameters = [torch.randn(shape) / 4 for shape in ((m, rank), (n, rank), (m, 1), (n, 1), (1,))]
ratings, observed = torch.randint(1, 11, (m, n)) / 2, torch.rand(m, n) < 0.8
if ratings_dtype == "codes":
    observations = [encode_ratings(ratings, observed)]
else:
    observations = [ratings.to(getattr(torch, ratings_dtype))]
    if mask_dtype == "none":
        observations[0][~observed] = float("nan")
    else:
        observations.append(observed.to(getattr(torch, mask_dtype)))
step = lambda: mf_loss_and_grads(*parameters, *observations, backend="native")
step(), step()
for line in sys.stdin:
    start = clock()
    for _ in range(int(line)):
        step()
    print((clock() - start) / int(line), flush=True)
"""
PRODUCT = """
import sys, time
import torch

clock = time.process_time if sys.argv[1] == "1" else time.perf_counter
torch.set_num_threads(int(sys.argv[1]))
a, b = torch.randn(2, int(sys.argv[2]), int(sys.argv[2])).unbind()
a @ b
for line in sys.stdin:
    start = clock()
    a @ b
    print(clock() - start, flush=True)
"""
CASES = (
    "4096x4096,32,float32,uint8",
    "2048x2048,32,float32,uint8",
    "2048x2048,16,float32,uint8",
    "2048x2048,33,float32,uint8",
    "2048x2048,64,float32,uint8",
    "2048x2048,128,float32,uint8",
    "200x300,30,float64,int32",
    "4096x4096,32,float64,int32",
    "4096x4096,32,bfloat16,none",
    "4096x4096,32,codes,none",
)
TURN_FLOPS = 3e9  # operations of the steps in a row that make a turn, a few hundredths of a second


def turns(case: str, checkouts: list[Path], threads: int, rounds: int) -> tuple[float, list[list[float]]]:
    """Return a step's operations, and the seconds of the product and of each checkout's step in every round."""
    size, rank, ratings, mask = case.split(",")
    m, n = size.split("x")
    flops = 6.0 * int(m) * int(n) * int(rank)
    steps = max(1, int(TURN_FLOPS / flops))
    products: list[float] = []
    times: list[list[float]] = [[] for _ in checkouts]
    with ExitStack() as stack:
        product = Worker(checkouts[0], PRODUCT, str(threads), str(GEMM_SIZE))
        workers = [Worker(checkout, STEP, str(threads), m, n, rank, ratings, mask) for checkout in checkouts]
        for worker in (product, *workers):
            stack.callback(worker.close)
        order = list(zip(workers, times, strict=True))
        for _ in range(rounds):
            products.append(product.seconds(1))
            order.reverse()
            order[0][0].seconds(steps)  # while the product's threads still spin
            for worker, seconds in order:
                seconds.append(worker.seconds(steps))
    return flops, [products, *times]


def compiler_with(flags: str) -> str:
    """Write a script that compiles with more flags after all others; return its path, by which builds are kept."""
    script = cache_folder() / f"cxx{flags.replace(' ', '')}"
    script.write_text(f'#!/bin/sh\nexec {shlex.join(find_compiler())} "$@" {flags}\n')
    script.chmod(0o755)
    return str(script)


@click.command(help=__doc__)
@click.option("--against", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--case", "cases", multiple=True, default=CASES)
@click.option("--flags", default="", help="for the compiler")
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=15, show_default=True)
def main(against: Path | None, cases: tuple[str, ...], flags: str, threads: int, rounds: int) -> None:
    checkouts = [Path(__file__).parents[2]] + ([] if against is None else [against.absolute()])
    table = Table("case", "step", "of the product", "there / here", "least", "most")
    with mock.patch.dict(os.environ, {"CXX": compiler_with(flags)} if flags else {}):
        for case in cases:
            flops, (products, *steps) = turns(case, checkouts, threads, rounds)
            rates = [2.0 * GEMM_SIZE**3 / seconds for seconds in products]
            shares = [flops / seconds / rate for seconds, rate in zip(steps[0], rates, strict=True)]
            row = [case, f"{statistics.median(steps[0]) * 1e3:.3f} ms", f"{statistics.median(shares):.0%}"]
            if against is not None:
                ratios = [there / here for here, there in zip(*steps, strict=True)]
                row += [f"{ratio:.3f}" for ratio in (statistics.median(ratios), min(ratios), max(ratios))]
            table.add_row(*row)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
