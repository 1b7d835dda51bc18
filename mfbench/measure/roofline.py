"""Compute the roofline of a case: count the operations and bytes of a step, and measure the machine's ceilings."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch

from kernels.cpu import launch

if TYPE_CHECKING:
    from mfbench.problems.cases import Case

GEMM_SIZE = 2048  # rows and columns of the square product
PEAK_ROUNDS = 100_000  # multiply-add rounds per run, a millisecond or less
BUFFER_BYTES = (1 << 16, 1 << 28)  # smallest and largest working set whose bandwidth is measured
MEASURE_S, LONGEST_S = 0.15, 1.5  # time for a ceiling, and at most while its fastest runs disagree
AGREE = 1.1  # ratio within which the three fastest runs agree; other load can disturb all early ones

BYTES = {"float64": 8, "float32": 4, "int32": 4, "int64": 8, "bfloat16": 2, "float16": 2, "uint8": 1, "int8": 1,
         "bool": 1, "none": 0}  # fmt: skip


class Work(NamedTuple):
    """Operations and bytes of one step."""

    flops: float  # three products of k multiplications and additions a rating: E, dP, dQ
    bytes: float  # ratings and mask read once; factors and biases read, their gradients written


class Ceilings(NamedTuple):
    """Rates this machine reached in this process, with PyTorch's number of threads."""

    gemm_flops_per_s: float  # of PyTorch's square product, which may not use the widest vectors
    peak_flops_per_s: float | None  # of multiply-adds on registers; None: not measured
    copy_bytes_per_s: float


class Floor(NamedTuple):
    """Lower bound on the time of any implementation on this machine, and what sets it."""

    seconds: float
    bound: Literal["compute", "memory"]


def work(case: Case, observed: int | None = None) -> Work:
    """Count the operations and bytes of one step on float32 parameters.

    Args:
        case: with its size filled in.
        observed: number of observed ratings, to count only work that none can avoid; None counts the whole matrix.
            Masks are read whole either way, and so are ratings whose NaN mark the unobserved entries. Sparse ratings
            are counted alone, each with an index of four bytes.
    """
    parameters = ((case.m + case.n) * (case.rank + 1) + 1) * 4
    if case.sparse:
        count = case.expected_ratings if observed is None else observed
        ratings = count * (BYTES[case.ratings_dtype] + BYTES["int32"]) + (case.m + 1) * BYTES["int64"]
        return Work(6.0 * count * case.rank, float(ratings + 2 * parameters))
    cells = case.m * case.n
    count = cells if observed is None else observed
    ratings = cells * BYTES[case.mask] + (cells if case.mask == "none" else count) * BYTES[case.ratings_dtype]
    return Work(6.0 * count * case.rank, float(ratings + 2 * parameters))


def floor(case: Case, observed: int, ceilings: Ceilings) -> Floor:
    """Return the longer of computing at the peak rate and reading at the copy bandwidth, on the observed ratings.

    The GEMM rate stands in for a peak that was not measured.
    """
    flops, size = work(case, observed)
    compute, memory = flops / (ceilings.peak_flops_per_s or ceilings.gemm_flops_per_s), size / ceilings.copy_bytes_per_s
    return Floor(max(compute, memory), "compute" if compute >= memory else "memory")


def measure(case: Case, device: str) -> Ceilings:
    """Measure the ceilings for a case: float32 rates, and bandwidth of a working set of its size, cached or not."""
    smallest, largest = BUFFER_BYTES
    size = 1 << (int(work(case).bytes) - 1).bit_length()
    threads = torch.get_num_threads()
    return Ceilings(
        gemm_rate(device, threads),
        peak_rate(threads) if device == "cpu" and not launch.unavailable() else None,
        bandwidth(device, min(max(size, smallest), largest), threads),
    )


@functools.cache
def gemm_rate(device: str, threads: int) -> float:
    """Return the FLOP/s of a 2048³ float32 product, the best of several runs.

    `threads` is PyTorch's present setting; it is the cache key.
    """
    a, b = (torch.randn(GEMM_SIZE, GEMM_SIZE, device=device) for _ in range(2))
    return 2.0 * GEMM_SIZE**3 / _best(lambda: torch.mm(a, b), device)


@functools.cache
def peak_rate(threads: int) -> float:
    """Return the FLOP/s of float32 multiply-adds on registers with the CPU kernel's vectors, the best of several runs.

    No kernel that uses these vectors is faster; one that uses matrix units may be.

    Raises:
        BuildError: there is no compiled kernel.
    """
    return launch.multiply_and_add(PEAK_ROUNDS) / _best(lambda: launch.multiply_and_add(PEAK_ROUNDS), "cpu")


@functools.cache
def bandwidth(device: str, size: int, threads: int) -> float:
    """Return the bytes/s between cores and a working set of `size` bytes, copying or only reading, the faster of both.

    On a CPU one thread alone is tried too, since it need not wait for threads that other load delays.
    """
    source = torch.rand(size // 4, device=device)
    half = source[: size // 8]
    target = torch.empty_like(half)
    copies: list[Callable[[], object]] = [lambda: target.copy_(half)]
    if device == "cpu":
        copies.append(functools.partial(np.copyto, target.numpy(), half.numpy()))
    copied = max(2 * half.nbytes / _best(copy, device) for copy in copies)
    return max(copied, source.nbytes / _best(source.sum, device))


def _best(call: Callable[[], object], device: str) -> float:
    """Return the seconds of the fastest run within `MEASURE_S`, or `LONGEST_S` while the three fastest disagree."""

    def timed() -> float:
        start = time.perf_counter()
        call()
        if device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    timed()
    start = time.perf_counter()
    times = sorted(timed() for _ in range(3))
    while (passed := time.perf_counter() - start) < MEASURE_S or (passed < LONGEST_S and times[2] > AGREE * times[0]):
        times = sorted([*times, timed()])
    return times[0]
