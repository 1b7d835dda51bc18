"""The machine's floor: operations and bytes of a step counted, ceilings measured."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import torch

from kernels.cpu import launch
from mfbench.problems.cases import Case

GEMM_SIZE = 2048
ROUNDS = 100_000  # of multiplying and adding, a millisecond or less
BUFFER_BYTES = (1 << 16, 1 << 28)  # smallest and largest working set whose bandwidth is measured
MEASURE_S, LONGEST_S = 0.15, 1.5
AGREE = 1.1  # where other programs run, a few runs that were not disturbed have to be waited for

BYTES = {"float64": 8, "float32": 4, "int32": 4, "int64": 8, "bfloat16": 2, "float16": 2, "uint8": 1, "int8": 1,
         "bool": 1, "none": 0}  # fmt: skip


class Work(NamedTuple):
    """Operations and bytes of one step."""

    flops: float  # three products of k multiplications and additions a rating: E, dP, dQ
    bytes: float  # ratings and mask read once; factors and biases read, their gradients written


class Ceilings(NamedTuple):
    """What the machine reached in this process, with as many threads as PyTorch is set to."""

    gemm_flops_per_s: float  # in PyTorch's square product, which may not use the widest vectors there are
    peak_flops_per_s: float | None  # of multiply-adds from registers; None: not measured
    copy_bytes_per_s: float


class Floor(NamedTuple):
    """The time below which no implementation on this machine gets, and what sets it."""

    seconds: float
    bound: Literal["compute", "memory"]


def work(case: Case, observed: int | None = None) -> Work:
    """Of one step on float32 parameters: on the whole matrix, or what cannot be spared where so many are observed.

    A mask is read whole, and so are ratings that hold their mask as NaN.
    """
    cells = case.m * case.n
    count = cells if observed is None else observed
    ratings = cells * BYTES[case.mask] + (cells if case.mask == "none" else count) * BYTES[case.ratings_dtype]
    parameters = ((case.m + case.n) * (case.rank + 1) + 1) * 4
    return Work(6.0 * count * case.rank, float(ratings + 2 * parameters))


def floor(case: Case, observed: int, ceilings: Ceilings) -> Floor:
    """The longer of computing on the observed ratings at the peak rate and reading them at the copy bandwidth.

    The peak is the GEMM's where no other was measured.
    """
    flops, size = work(case, observed)
    compute, memory = flops / (ceilings.peak_flops_per_s or ceilings.gemm_flops_per_s), size / ceilings.copy_bytes_per_s
    return Floor(max(compute, memory), "compute" if compute >= memory else "memory")


def measure(case: Case, device: str) -> Ceilings:
    """Ceilings for a case: float32 rates, and bandwidth of a working set of its size (it may fit a cache)."""
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
    """FLOP/s of a 2048³ float32 product, the best of several, where PyTorch is set to so many threads."""
    a, b = (torch.randn(GEMM_SIZE, GEMM_SIZE, device=device) for _ in range(2))
    return 2.0 * GEMM_SIZE**3 / _best(lambda: torch.mm(a, b), device)


@functools.cache
def peak_rate(threads: int) -> float:
    """FLOP/s of float32 multiply-adds in the CPU kernel's vectors, from registers, the best of several.

    No kernel on such vectors is faster; matrix units, where there are any, may be.

    Raises:
        BuildError: there is no compiled kernel.
    """
    return launch.multiply_and_add(ROUNDS) / _best(lambda: launch.multiply_and_add(ROUNDS), "cpu")


@functools.cache
def bandwidth(device: str, size: int, threads: int) -> float:
    """Bytes/s moved between cores and a working set of `size` bytes: by copying or only reading, whichever is faster.

    On a CPU by one thread, too, which no thread keeps waiting that other programs hold up.
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
    """Seconds of the fastest of the runs that fit into a moment; into a longer one until the three fastest agree."""

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
