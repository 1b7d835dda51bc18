"""Time what the host does for a GPU step, with CPU tensors and launches that do nothing, here and in another checkout.

python -m tests.studies.host [--against PATH] [--rounds 50]

Checks, plan, allocation and arguments are timed: everything but the compiled kernels' launcher. The checkouts take
turns, so that other load disturbs them equally.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click

WORKER = """
import contextlib, sys, time
import torch
from triton.runtime.jit import JITFunction
from kernels import mf_loss_and_grads, mf_sse
from kernels.gpu import config, launch

class Compiled:
    def __getitem__(self, grid):
        return lambda *arguments, stream=None: None

compiled = Compiled()
JITFunction.__getitem__ = lambda kernel, grid: lambda *arguments, **named: compiled
launch.DEVICES, launch.target_of = ("cpu",), lambda device: config.TARGETS["sm_90"]
torch.cpu.device = lambda device: contextlib.nullcontext()
torch.set_num_threads(1)

m, n, rank = 200, 300, 30
parameters = torch.zeros(m, rank), torch.zeros(n, rank), torch.zeros(m, 1), torch.zeros(n, 1), torch.zeros(1)
observations = torch.zeros(m, n, dtype=torch.float64), torch.ones(m, n, dtype=torch.int32)
step = lambda: mf_loss_and_grads(*parameters, *observations, backend="triton", precision="tf32")
step(), step()
for line in sys.stdin:
    start = time.perf_counter()
    for _ in range(int(line)):
        step()
    print((time.perf_counter() - start) / int(line), flush=True)
"""


class Worker:
    """A process that runs steps of one checkout, or another script that does as `WORKER`."""

    def __init__(self, checkout: Path, script: str = WORKER, *arguments: str, **variables: str) -> None:
        environment = os.environ | variables | {"PYTHONPATH": str(checkout)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", script, *arguments], cwd=checkout, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def seconds(self, steps: int) -> float:
        """Return the seconds of a step, the mean over some in a row."""
        assert self.process.stdin
        assert self.process.stdout
        print(steps, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait()


def interleaved(checkouts: Sequence[Path], rounds: int, steps: int = 20) -> list[list[float]]:
    """Return the seconds of a step in every round, for each checkout."""
    workers = [Worker(checkout) for checkout in checkouts]
    try:
        turns = [[worker.seconds(steps) for worker in workers] for _ in range(rounds)]
    finally:
        for worker in workers:
            worker.close()
    return [list(seconds) for seconds in zip(*turns, strict=True)]


@click.command(help=__doc__)
@click.option("--against", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--rounds", type=click.IntRange(min=1), default=50, show_default=True)
def main(against: Path | None, rounds: int) -> None:
    here = Path(__file__).parents[2]
    checkouts = [here] if against is None else [here, against.absolute()]
    times = interleaved(checkouts, rounds)
    for checkout, seconds in zip(checkouts, times, strict=True):
        click.echo(f"{checkout}: median {statistics.median(seconds) * 1e6:.1f} us, least {min(seconds) * 1e6:.1f} us")
    if against is not None:
        ratios = [own / other for own, other in zip(*times, strict=True)]
        click.echo(f"here / there: median {statistics.median(ratios):.3f}, at most {max(ratios):.3f}")


if __name__ == "__main__":
    main()
