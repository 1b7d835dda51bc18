"""Time each phase of the dense step on this CPU, on one thread, against the least time that the phase could take.

python -m tests.studies.cpu_phases [--size 4096x4096 --rank 32 --ratings float32 --mask uint8]

Without a size: the notebook's problem, 2048 x 2048 and 4096 x 4096. Bounds: products at the rate of multiply-adds in
registers; packing, errors and reduction at the bandwidth of a working set of the size of what they read and write; all
other phases could in principle take no time. Times are the least of all rounds, which other load disturbs least. Where
errors are made in registers, predictions include them. A second thread, asleep or spinning, is woken by an empty job.
"""

from __future__ import annotations

import ctypes
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import click
import torch
from rich.console import Console
from rich.table import Table

from kernels import mf_loss_and_grads
from kernels.cpu import build, launch
from mfbench.measure import roofline

# In the order of `Phase` in phases.h
PHASES = ("packing", "decoding", "predictions", "errors", "dP", "dQ", "reduction")
ASLEEP_S = 0.002  # longer than a helper spins


class Case(NamedTuple):
    """A dense problem with float32 parameters, four fifths of the ratings observed."""

    m: int
    n: int
    rank: int
    ratings: str  # names of dtypes
    mask: str

    def __str__(self) -> str:
        return f"{self.m} x {self.n}, rank {self.rank}, {self.ratings} ratings, {self.mask} mask"


CASES = (
    Case(200, 300, 30, "float64", "int32"),
    Case(2048, 2048, 32, "float32", "uint8"),
    Case(4096, 4096, 32, "float32", "uint8"),
)


class Row(NamedTuple):
    """A phase: its seconds in a step, and the least that they could be with what limits them."""

    name: str
    seconds: float
    bound: float | None = None
    limit: str = ""


@contextmanager
def timed_kernel() -> Iterator[ctypes.CDLL]:
    """Build the kernel with timers, and let the backend `native` run it.

    Raises:
        BuildError: It cannot be compiled here.
    """
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "phases.so"
        command = [*build.find_compiler(), *build.flag_sets()[0], "-DTIME_PHASES", str(build.SOURCE)]
        build._run([*command, "-o", str(library)])
        kernel = build._load(library)
        kernel.mf_take_phases.argtypes = [ctypes.POINTER(ctypes.c_double)]
        kernel.mf_take_phases.restype = None
        with mock.patch.object(launch, "load_kernel", return_value=kernel):
            yield kernel
        kernel.mf_release()


def take_phases(kernel: ctypes.CDLL) -> list[float]:
    """Return the seconds of this thread in every phase, and in the whole step, since the last call."""
    seconds = (ctypes.c_double * (len(PHASES) + 1))()
    kernel.mf_take_phases(seconds)
    return list(seconds)


def phases(kernel: ctypes.CDLL, case: Case, rounds: int, steps: int) -> list[Row]:
    """Return the times of a step's phases, each the least of some rounds of some steps in a row."""
    m, n, rank, ratings, mask = case
    generator = torch.Generator().manual_seed(0)
    shapes = (m, rank), (n, rank), (m, 1), (n, 1), (1,)
    parameters = [torch.randn(shape, generator=generator) for shape in shapes]
    observed = torch.rand(m, n, generator=generator) < 0.8
    observations = (
        (torch.rand(m, n, generator=generator) * 5).to(getattr(torch, ratings)),
        observed.to(getattr(torch, mask)),
    )
    samples = []
    for _ in range(rounds + 1):  # the first one warms up
        take_phases(kernel)
        start = time.perf_counter()
        for _ in range(steps):
            mf_loss_and_grads(*parameters, *observations, backend="native")
        elapsed = time.perf_counter() - start
        *parts, step = take_phases(kernel)
        samples.append([part / steps for part in (*parts, step - sum(parts), elapsed - step)])
    least = [min(column) for column in zip(*samples[1:], strict=True)]
    bounds = bounds_of(case)
    found = zip((*PHASES, "rest", "Python"), least, strict=True)
    return [Row(name, seconds, *bounds.get(name, ())) for name, seconds in found if seconds]


def bounds_of(case: Case) -> dict[str, tuple[float, str]]:
    """Return the least seconds of a phase on one thread, and what limits it."""
    m, n, rank, ratings, mask = case
    factors = (m + n) * rank * 4  # bytes
    product = 2.0 * m * n * rank / roofline.peak_rate(1), "multiply-adds"
    return {
        "packing": moved(3 * factors + 2 * n * rank * 4),  # copied, items once more as panels; gradients zeroed
        "predictions": product,
        "errors": moved(m * n * (roofline.BYTES[ratings] + roofline.BYTES[mask])),
        "dP": product,
        "dQ": product,
        "reduction": moved(3 * factors),
    }


def moved(size: int) -> tuple[float, str]:
    """Return the seconds in which one thread moves some bytes again and again."""
    smallest, largest = roofline.BUFFER_BYTES
    working_set = min(max(1 << (size - 1).bit_length(), smallest), largest)
    return size / roofline.bandwidth("cpu", working_set, 1), "bandwidth"


def waking(rounds: int) -> list[Row]:
    """Return the median times to share a job of no work with a second thread, one that spins and one that sleeps."""
    rows = []
    for name, pause in (("waking: spinning", 0.0), ("waking: asleep", ASLEEP_S)):
        times = []
        for _ in range(rounds):
            time.sleep(pause)
            start = time.perf_counter()
            launch.multiply_and_add(0)
            times.append(time.perf_counter() - start)
        rows.append(Row(name, statistics.median(times)))
    return rows


def show(title: str, rows: Sequence[Row]) -> None:
    """Print the rows as a table."""
    table = Table("phase", "time", "share", "bound", "bound / time", "limit", title=title, title_justify="left")
    total = sum(row.seconds for row in rows)
    for name, seconds, bound, limit in rows:
        least = "" if bound is None else f"{bound * 1e6:.1f} us"
        ratio = "" if bound is None or not seconds else f"{bound / seconds:.0%}"
        table.add_row(name, f"{seconds * 1e6:.1f} us", f"{seconds / total:.1%}", least, ratio, limit)
    Console().print(table)


@click.command(help=__doc__)
@click.option("--size", metavar="MxN")
@click.option("--rank", type=click.IntRange(min=1), default=32, show_default=True)
@click.option("--ratings", default="float32", show_default=True, help="dtype")
@click.option("--mask", default="uint8", show_default=True, help="dtype")
@click.option("--rounds", type=click.IntRange(min=1), default=15, show_default=True)
def main(size: str | None, rank: int, ratings: str, mask: str, rounds: int) -> None:
    cases: Sequence[Case] = CASES
    if size is not None:
        m, n = map(int, size.split("x"))
        cases = [Case(m, n, rank, ratings, mask)]
    threads = torch.get_num_threads()
    with timed_kernel() as kernel:
        torch.set_num_threads(1)
        for case in cases:
            steps = max(1, int(2e9 / (6 * case.m * case.n * case.rank)))
            show(str(case), phases(kernel, case, rounds, steps))
        torch.set_num_threads(2)
        show("a job of no work on two threads, from Python", waking(rounds * 10))
    torch.set_num_threads(threads)


if __name__ == "__main__":
    main()
