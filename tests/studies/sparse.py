"""Compare the sparse step with the dense one and with a plain pass: its targets, by density and size, and in memory.

python -m tests.studies.sparse [--part targets|density|yardstick|growth|memory] [--cpu-time]

Alternatives are timed in turn within each round, and ratios are those of medians. The targets are timed by the time
that passes on all threads, and by the CPU time of one thread, which other jobs disturb less; `--cpu-time` times
everything by the latter. Where two threads share data, the distance of their cores counts: it is printed, as the time
that a cache line takes from one to the other. All of it takes about four minutes on two quiet cores.
"""

from __future__ import annotations

import ctypes
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import torch
from torch import Tensor

from kernels import EncodedRatings, encode_ratings, mf_loss_and_grads
from kernels.cpu import launch
from kernels.csr import observations_of_csr
from tests.studies.native import compiled, core_distance

SECONDS = 2.0  # for the timing of one comparison
SHORTEST = 0.02  # seconds: faster steps are timed several at a time
DENSITIES = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4)
SMALL = (610, 9_724, 100_836)  # users, items, ratings: MovieLens latest-small
MEDIUM = (69_878, 10_677, 10_000_054)  # MovieLens 10M
AVX512 = torch.backends.cpu.get_cpu_capability() == "AVX512"
# Dense / sparse: 2048 x 2048 at rank 32 by density, and MovieLens latest-small at rank 30.
TARGETS = {0.01: 20.0, 0.05: 8.0, 0.2: 2.4} if AVX512 else {0.01: 12.0, 0.05: 5.0, 0.2: 1.5}
SMALL_TARGET = 12.0 if AVX512 else 8.0
YARDSTICK_TARGET = 1.3
WORST_CHOICE = 1.1  # of layout="auto", by the better layout's time
LARGE = (162_541, 59_047, 25_000_095)  # MovieLens 25M
GROWTH = (10**5, 10**6, 10**7, 3 * 10**7)  # ratings
RATINGS_PER_USER, RATINGS_PER_ITEM = 128, 1_000  # of the problems that grow


def uniform(m: int, n: int, density: float) -> Tensor:
    """Draw a matrix whose places are observed with equal probability."""
    ratings = torch.randint(1, 11, (m, n)) / 2
    return torch.where(torch.rand(m, n) < density, ratings, 0).to_sparse_csr()


def power_law(m: int, n: int, observed: int) -> Tensor:
    """Draw ratings of which few users and few items have many; about `observed` of them, none twice."""
    weights = (torch.randperm(m) + 10.0) ** -0.7
    counts = (weights / weights.sum() * observed * 1.1).ceil().long().clamp(max=n // 2)
    users = torch.repeat_interleave(torch.arange(m), counts)
    cumulative = ((torch.randperm(n) + 10.0) ** -0.9).cumsum(0)
    items = torch.searchsorted(cumulative, torch.rand(len(users)) * cumulative[-1]).clamp(max=n - 1)
    places = (users * n + items).unique()
    return in_rows(places // n, places % n, m, n)


def stratified(m: int, n: int) -> Tensor:
    """Draw RATINGS_PER_USER ratings for every user, one in each stretch of the items."""
    starts = torch.arange(RATINGS_PER_USER) * n // RATINGS_PER_USER
    items = starts + (torch.rand(m, RATINGS_PER_USER) * (n // RATINGS_PER_USER)).long()
    return in_rows(torch.repeat_interleave(torch.arange(m), RATINGS_PER_USER), items.flatten(), m, n)


def in_rows(users: Tensor, items: Tensor, m: int, n: int) -> Tensor:
    """Return random half stars at sorted places."""
    rows = torch.zeros(m + 1, dtype=torch.int64)
    rows[1:] = torch.bincount(users, minlength=m).cumsum(0)
    return torch.sparse_csr_tensor(rows, items, torch.randint(1, 11, (len(items),)) / 2, (m, n), check_invariants=False)


class Timer:
    """Times alternatives in turn."""

    def __init__(self, cpu_time: bool) -> None:
        self.cpu_time = cpu_time
        self._clock = time.thread_time if cpu_time else time.perf_counter

    def seconds(self, steps: dict[str, Callable[[], object]]) -> dict[str, float]:
        """Return the median seconds of every step."""
        loops = {name: max(1, int(SHORTEST / max(self._once(step, 2), 1e-6))) for name, step in steps.items()}
        samples: dict[str, list[float]] = {name: [] for name in steps}
        end = time.perf_counter() + SECONDS
        rounds = 0
        while time.perf_counter() < end or rounds < 3:
            rounds += 1
            for name, step in steps.items():
                step()  # as in a training loop, caches hold its data and not those of the step before
                samples[name].append(self._once(step, loops[name]))
        return {name: statistics.median(values) for name, values in samples.items()}

    def _once(self, step: Callable[[], object], loops: int) -> float:
        start = self._clock()
        for _ in range(loops):
            step()
        return (self._clock() - start) / loops


def parameters_of(m: int, n: int, rank: int) -> list[Tensor]:
    """Draw parameters."""
    return [torch.randn(shape) / 10 for shape in ((m, rank), (n, rank), (m,), (n,), ())]


def steps_of(ratings: Tensor, rank: int, dense: bool) -> dict[str, Callable[[], object]]:
    """Return the step on encoded and on raw sparse ratings, the check of the latter, and the step on the dense ones."""
    m, n = ratings.shape
    parameters = parameters_of(m, n, rank)

    def on(ratings: Tensor | EncodedRatings) -> Callable[[], object]:
        return lambda: mf_loss_and_grads(*parameters, ratings, backend="native")

    steps = {"encoded": on(encode_ratings(ratings, layout="sparse")), "raw": on(ratings)}
    steps["check"] = lambda: launch._columns_rise(observations_of_csr(ratings))
    return steps | ({"dense": on(encode_ratings(ratings, layout="dense"))} if dense else {})


def show(name: str, ratings: Tensor, rank: int, dense: bool, timer: Timer, target: float | None = None) -> None:
    """Time the steps and print a line."""
    count = ratings.values().numel()
    seconds = timer.seconds(steps_of(ratings, rank, dense))
    encoded = seconds["encoded"]
    line = f"{name:23} rank {rank:3} {encoded * 1e3:7.3f} ms {count / encoded / 1e6:4.0f} M ratings/s"
    line += f"  raw {seconds['raw'] / encoded:4.2f} x, of which its check {seconds['check'] / encoded:5.1%}"
    if dense:
        auto = "dense" if encode_ratings(ratings, layout="auto").layout == "dense" else "encoded"
        worse = seconds[auto] / min(encoded, seconds["dense"])
        line += f"  dense {seconds['dense'] / encoded:5.2f} x"
        if target:
            line += f" (target {target:g}), cores {core_distance():.0f} ns apart"
        else:
            line += f"  auto {worse:4.2f} x the better (at most {WORST_CHOICE})"
    click.echo(line)


def targets(timer: Timer) -> None:
    """Print by how much the sparse layout is faster where that was set as a target, also by one thread's CPU time."""
    threads = torch.get_num_threads()
    problems = [("MovieLens latest-small", power_law(*SMALL), 30, SMALL_TARGET)]
    problems += [(f"2048 x 2048 at {at:.0%}", uniform(2048, 2048, at), 32, target) for at, target in TARGETS.items()]
    for each in (timer, Timer(cpu_time=True)):
        torch.set_num_threads(1 if each.cpu_time else threads)
        click.echo(f"{torch.get_num_threads()} threads, {'CPU' if each.cpu_time else 'wall-clock'} time:")
        for name, ratings, rank, target in problems:
            show(name, ratings, rank, True, each, target)
        if timer.cpu_time:
            break
    torch.set_num_threads(threads)


def by_density(timer: Timer) -> None:
    """Print how much faster the sparse layout is at each density, and what `layout="auto"` costs."""
    for rank in (8, 32, 128):
        for density in DENSITIES:
            show(f"2048 x 2048 at {density:.0%}", uniform(2048, 2048, density), rank, True, timer)


class Pass(ctypes.Structure):
    """The pointers of `Pass` in csr_pass.cpp."""

    _fields_ = tuple((f"pointer_{place}", ctypes.c_void_p) for place in range(11))


def yardstick(timer: Timer) -> None:
    """Print the time of a plain pass divided by that of the step, which for MovieLens 10M's shape has a target."""
    for density in TARGETS:
        compare_with_pass(f"2048 x 2048 at {density:.0%}", uniform(2048, 2048, density), timer)
    compare_with_pass("MovieLens 10M", power_law(*MEDIUM), timer, f" (target {YARDSTICK_TARGET})")


def compare_with_pass(name: str, ratings: Tensor, timer: Timer, target: str = "") -> None:
    """Check that the plain pass agrees with the step, time both, and print a line."""
    m, n = ratings.shape
    P, Q, bu, bi, mu = parameters_of(m, n, 32)
    mu.zero_()  # the pass knows no global bias
    gradients = [torch.zeros_like(parameter) for parameter in (P, Q, bu, bi)]
    inputs = [ratings.crow_indices(), ratings.col_indices().int(), ratings.values(), P, Q, bu, bi]
    pointers = Pass(*(tensor.data_ptr() for tensor in inputs + gradients))
    scratch = torch.zeros(n * 33)
    csr_pass = compiled("csr_pass.cpp").csr_pass
    csr_pass.restype = ctypes.c_double
    arguments = (ctypes.byref(pointers), *map(ctypes.c_int64, (m, n, min(2, torch.get_num_threads()))))
    encoded = encode_ratings(ratings, layout="sparse")
    steps: dict[str, Callable[[], object]] = {
        "step": lambda: mf_loss_and_grads(P, Q, bu, bi, mu, encoded, reg=0.0, backend="native"),
        "pass": lambda: csr_pass(*arguments, ctypes.c_void_p(scratch.data_ptr())),
    }
    loss, grads = mf_loss_and_grads(P, Q, bu, bi, mu, encoded, reg=0.0, backend="native")
    assert math.isclose(float(loss), float(csr_pass(*arguments, ctypes.c_void_p(scratch.data_ptr()))), rel_tol=1e-4)
    torch.testing.assert_close(grads.item_factors, 2 * gradients[1], rtol=1e-2, atol=1e-1)
    seconds = timer.seconds(steps)
    rate, ratio = ratings.values().numel() / seconds["step"] / 1e6, seconds["pass"] / seconds["step"]
    click.echo(
        f"{name:18} rank 32 {rate:4.0f} M ratings/s, a plain pass takes {ratio:.2f} times as long"
        f"{target}; cores {core_distance():.0f} ns apart"
    )


def by_size(timer: Timer) -> None:
    """Print how the time grows with the ratings."""
    points = []
    for count in GROWTH:
        ratings = stratified(count // RATINGS_PER_USER, max(RATINGS_PER_USER, count // RATINGS_PER_ITEM))
        seconds = timer.seconds({"": steps_of(ratings, 32, False)["encoded"]})[""]
        points.append((math.log(count), math.log(seconds)))
        click.echo(f"{count:>12,} ratings {seconds * 1e3:9.2f} ms")
    slope = statistics.linear_regression(*zip(*points, strict=True)).slope
    click.echo(f"time grows with the ratings to the power of {slope:.3f} (target 0.95 to 1.05)")


STEP = """
import sys, torch
from kernels import EncodedRatings, mf_loss_and_grads
encoded = EncodedRatings.load(sys.argv[1])
m, n = encoded.shape
parameters = [torch.rand(shape) for shape in ((m, 32), (n, 32), (m,), (n,), ())]
def high_water():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) * 1024
before = high_water()
mf_loss_and_grads(*parameters, encoded, backend="native")
print(f"a step adds {(high_water() - before) / 1e6:.0f} MB; its gradients are {4 * 33 * (m + n) / 1e6:.0f} MB")
"""


def memory(_: Timer) -> None:
    """Print the bytes of encoded ratings, and by how much a step raises a fresh process's high-water mark."""
    m, n, observed = LARGE
    ratings = power_law(m, n, observed)
    for encoding in ("uint8-code", "float32"):
        encoded = encode_ratings(ratings, None, encoding, "sparse")
        click.echo(f"MovieLens 25M as {encoding}: {encoded.nbytes / encoded.observed:.2f} bytes a rating")
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "ratings.pt"
            encoded.save(file)
            click.echo(subprocess.check_output([sys.executable, "-c", STEP, file], text=True).strip())


PARTS = {"targets": targets, "density": by_density, "yardstick": yardstick, "growth": by_size, "memory": memory}


@click.command()
@click.option("--part", type=click.Choice(list(PARTS)), multiple=True, help="Default: all.")
@click.option("--cpu-time", is_flag=True, help="Time one thread by its CPU time.")
def main(part: tuple[str, ...], cpu_time: bool) -> None:
    """Run the study."""
    torch.manual_seed(0)
    if cpu_time:
        torch.set_num_threads(1)
    for name in part or PARTS:
        click.echo(f"{name}, {torch.get_num_threads()} threads, {'CPU' if cpu_time else 'wall-clock'} time")
        PARTS[name](Timer(cpu_time))


if __name__ == "__main__":
    main()
