"""Compare with other libraries for rating matrices: time of a pass, and time to a held-out error.

    python -m tests.studies.rivals [--environment FOLDER] [--part passes|quality] [--ratings N]

Installs cornac, implicit and LensKit into a virtual environment, by default a temporary one. LensKit pulls in another
PyTorch, several gigabytes. Each library runs in a separate process, and they take turns. What counts as a pass differs:

- this project, `gather`: loss and gradients of all parameters from all ratings; the update is not included.
- cornac: stochastic gradient descent, every rating once, both factors and biases updated at each; threads race.
- implicit: alternating least squares with 3 conjugate gradient steps a row, users then items; weights for implicit
  feedback, so every place of the matrix counts; no biases.
- LensKit: alternating least squares, a Cholesky solution a row, users then items; biases fixed beforehand.

The last two do more work a pass, of the order of the squared rank a rating, and need fewer passes.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor

from mfbench.problems import datasets, matrices, power_law
from mfbench.problems.inputs import Inputs
from mfbench.providers import registry
from mfbench.train.loop import train
from mfbench.train.options import EPOCHS, EVERY, PATIENCE
from mfbench.train.task import rating_task
from tests.studies import rival_process

PINNED = ("cornac==3.0.1", "implicit==0.7.3", "lenskit==2025.8.1")
RIVALS = ("cornac", "implicit", "lenskit")
SHAPE, RATINGS, RANK = (69_878, 10_677), 10_000_054, 32  # MovieLens 10M
CORNAC_RANK, CORNAC_PASSES = 10, 20  # its defaults
TARGET = 0.88


class Rival:
    """Another library, in another process. A call runs one pass and returns its seconds, and its RMSE if it has one."""

    def __init__(self, python: Path, name: str, folder: Path, rank: int, threads: int) -> None:
        limits = dict.fromkeys(("OMP_NUM_THREADS", "LK_NUM_THREADS", "RAYON_NUM_THREADS"), str(threads))
        limits |= {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "LK_NUM_BACKEND_THREADS": "1"}
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | limits
        command = [python, "-P", rival_process.__file__, name, folder, str(rank), str(threads)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=environment,
        )  # fmt: skip
        self._answer("ready")

    def __call__(self) -> dict[str, float]:
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        answer: dict[str, float] = json.loads(self._answer("{"))
        return answer

    def __enter__(self) -> Rival:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def _answer(self, beginning: str) -> str:
        assert self._process.stdout
        for line in self._process.stdout:
            if line.startswith(beginning):
                return line
        raise RuntimeError(f"{self._process.args} ended with {self._process.wait()}")


def python_of(environment: Path) -> Path:
    """Return the interpreter of an environment with the other libraries, which is made where there is none."""
    python = environment / "bin" / "python"
    if not python.exists():
        click.echo(f"installing {', '.join(PINNED)}")
        venv.create(environment, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PINNED], check=True)
    return python


def write(folder: Path, matrix: Tensor, prefix: str = "") -> None:
    """Write the triplets of a torch.sparse_csr matrix, in the order of users, for `rival_process`."""
    _, items, ratings = (part.numpy() for part in matrices.parts(matrix))
    users = matrices.row_numbers(matrix).numpy()
    for name, values in (("users", users), ("items", items), ("ratings", ratings)):
        dtype = np.float32 if name == "ratings" else np.int64
        np.save(folder / f"{prefix}{name}.npy", values.astype(dtype))
    np.save(folder / "shape.npy", np.array(matrix.shape))


def timed(step: Callable[[], Any]) -> Callable[[], dict[str, float]]:
    def one_pass() -> dict[str, float]:
        start = time.perf_counter()
        step()
        return {"seconds": time.perf_counter() - start}

    return one_pass


def passes(python: Path, folder: Path, ratings: int, rounds: int, threads: int) -> None:
    """Print everybody's ratings a second on the shape of MovieLens 10M, with fewer users where `ratings` is less."""
    share = ratings / RATINGS
    m, n = max(1, round(SHAPE[0] * share)), SHAPE[1]
    generator = torch.Generator("cpu").manual_seed(0)
    matrix = power_law.draw(m, n, ratings, generator)
    matrix = matrices.with_values(matrix, torch.randint(1, 11, (ratings,), generator=generator) / 2)
    write(folder, matrix)
    parameters = [
        torch.randn(shape, generator=generator) / 10 for shape in ((m, RANK), (n, RANK), (m, 1), (n, 1), (1,))
    ]
    inputs = Inputs(*parameters, matrix, None)
    contenders: dict[str, Callable[[], dict[str, float]]] = {
        name: timed(registry.load(name).prepare(inputs)) for name in ("fused-sparse", "gather")
    }
    with ExitStack() as stack:
        for name in RIVALS:
            contenders[name] = stack.enter_context(Rival(python, name, folder, RANK, threads))
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for round_number in range(rounds + 1):
            for name, one_pass in contenders.items():
                taken = one_pass()["seconds"]
                if round_number:  # the first is a warm-up
                    seconds[name].append(taken)
    click.echo(f"a pass over {ratings:,} ratings, {m:,} users, {n:,} items, rank {RANK}, {rounds} rounds in turn")
    ours = seconds["fused-sparse"]
    for name, samples in seconds.items():
        median = statistics.median(samples)
        ratios = [theirs / our for theirs, our in zip(samples, ours, strict=True)]
        click.echo(
            f"{name:13} {1e3 * median:9.1f} ms {ratings / median / 1e6:7.1f} M ratings/s  "
            f"takes {statistics.median(ratios):6.2f} times as long ({min(ratios):.2f} to {max(ratios):.2f})"
        )


def quality(python: Path, folder: Path, seeds: int, threads: int) -> None:
    """Print held-out RMSE over time on MovieLens latest-small; ours and cornac's, each with its defaults, in turn.

    Times are of passes and updates, without reading, compiling and the held-out error.
    """
    ratings = datasets.load("movielens")
    for seed in range(1, seeds + 1):
        task = rating_task(ratings, seed=seed, layout="sparse")
        write(folder, task.inputs.ratings)
        write(folder, task.held_out, "held_out_")
        run = train(task, registry.load("fused"), EPOCHS, EVERY, "preconditioned", patience=PATIENCE)
        ours = [(entry.epoch, entry.seconds, entry.held_out_rmse) for entry in run.entries]
        theirs, passed = [], 0.0
        with Rival(python, "cornac", folder, CORNAC_RANK, threads) as rival:
            for number in range(1, CORNAC_PASSES + 1):
                answer = rival()
                passed += answer["seconds"]
                theirs.append((number, passed, answer["rmse"]))
        for name, curve in (("train", ours), ("cornac", theirs)):
            click.echo(f"split {seed} {name:6} " + _described(curve))


def _described(curve: list[tuple[int, float, float]]) -> str:
    number, seconds, rmse = min(curve, key=lambda point: point[2])
    reached = next((point for point in curve if point[2] <= TARGET), None)
    until = f"{TARGET} after {reached[1]:.3f} s ({reached[0]} passes)" if reached else f"{TARGET} not reached"
    return (
        f"best RMSE {rmse:.4f} after {seconds:.3f} s ({number} passes); {until}; "
        f"in the end {curve[-1][2]:.4f} after {curve[-1][1]:.3f} s"
    )


@click.command()
@click.option(
    "--environment", type=click.Path(path_type=Path), help="Of the other libraries; made where it is missing."
)
@click.option("--part", type=click.Choice(["passes", "quality"]), multiple=True, help="Default: both.")
@click.option("--ratings", type=click.IntRange(min=1), default=RATINGS, show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--seeds", type=click.IntRange(min=1), default=5, show_default=True, help="Splits of MovieLens.")
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True)
def main(environment: Path | None, part: tuple[str, ...], ratings: int, rounds: int, seeds: int, threads: int) -> None:
    """Run the study."""
    torch.set_num_threads(threads)
    click.echo(f"Python {sys.version.split()[0]}, PyTorch {torch.__version__}, {threads} threads, {', '.join(PINNED)}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        python = python_of(environment or folder / "environment")
        if not part or "passes" in part:
            passes(python, folder, ratings, rounds, threads)
        if not part or "quality" in part:
            quality(python, folder, seeds, threads)


if __name__ == "__main__":
    main()
