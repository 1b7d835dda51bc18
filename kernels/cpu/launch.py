"""Backend `native`: hands one step to the compiled CPU kernel."""

from __future__ import annotations

import struct
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from kernels.cpu.build import BuildError, load_kernel
from kernels.problem import Grads, Problem

# Values of `RatingKind` and `MaskKind` in dtypes.h. A mask's kind is the bytes of an element, plus 16 for floats, whose
# sign bit is ignored.
CODES, BITS = 6, 32
RATING_KINDS = {
    torch.float64: 0,
    torch.float32: 1,
    torch.bfloat16: 2,
    torch.float16: 3,
    torch.uint8: 4,
    torch.int8: 5,
}
MASK_KINDS = {
    torch.bool: 1,
    torch.uint8: 1,
    torch.int8: 1,
    torch.uint16: 2,
    torch.int16: 2,
    torch.uint32: 4,
    torch.int32: 4,
    torch.uint64: 8,
    torch.int64: 8,
    torch.float16: 16 + 2,
    torch.bfloat16: 16 + 2,
    torch.float32: 16 + 4,
    torch.float64: 16 + 8,
    torch.float8_e4m3fn: 16 + 1,
    torch.float8_e5m2: 16 + 1,
}
# Layout of `Call` in call.h: two `Parameters` of 8 fields, two `Matrix` of 4, 4 integers, 3 pointers, 3 doubles.
CALL = struct.Struct("=16q 8q 4q 3q 3d")

_FLOAT64 = torch.empty((), dtype=torch.float64)  # a pattern: `empty_like` costs half of `empty`


@cache
def _reason() -> str:
    """Why the kernel cannot run on this machine, empty where it can."""
    try:
        load_kernel()
    except BuildError as error:
        return str(error)
    return ""


def unavailable(problem: Problem | None = None, precision: str = "ieee", deterministic: bool = False) -> str:
    """Why the kernel cannot run here, or cannot run `problem`; empty where it can."""
    reason = _reason()
    if reason or problem is None:
        return reason
    if not problem.ratings.is_cpu:
        return f"the tensors are on {problem.ratings.device}, not on the CPU"
    if problem.mask is not None and problem.mask.dtype not in MASK_KINDS:
        return f"masks of {problem.mask.dtype} are not decoded by this kernel"
    return ""


@cache
def _cpu_quota() -> int:
    """CPUs that the control group lets this process use at a time, rounded up."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, -(-int(quota) // int(period)))
    except (OSError, ValueError):
        return 1 << 30


def _threads() -> int:
    return min(torch.get_num_threads(), _cpu_quota())


def step(problem: Problem, precision: str, deterministic: bool, gradients: bool) -> tuple[Tensor, Grads | None]:
    """Loss (0-d float64) and, where asked for, the gradients of one step.

    Results are bitwise the same for the same number of threads, `deterministic` or not;
    the arithmetic is that of the parameters' dtype whatever `precision` says.
    """
    P, Q, bu, bi, mu, ratings, mask, reg, grid, packed, _ = problem
    m, rank = P.shape
    n = Q.shape[0]
    loss = torch.empty_like(_FLOAT64)
    grads = None
    d_pointers: tuple[int, ...] = (0, 0, 0, 0, 0)
    if gradients:
        grads = Grads(*[torch.empty_like(p, memory_format=torch.contiguous_format) for p in (P, Q, bu, bi, mu)])
        d_pointers = tuple([d.data_ptr() for d in grads])
    dP, dQ, dbu, dbi, dmu = d_pointers
    rating_kind = RATING_KINDS[ratings.dtype] if grid is None else CODES
    mask_part: tuple[int, ...] = (0, 0, 0, 0)
    if mask is not None:
        mask_part = (mask.data_ptr(), *mask.stride(), BITS if packed else MASK_KINDS[mask.dtype])
    scale, offset = (0.0, 0.0) if grid is None else grid.tolist()
    arguments = CALL.pack(
        *(m, P.data_ptr(), *P.stride(), bu.data_ptr(), bu.stride(0), dP, dbu),
        *(n, Q.data_ptr(), *Q.stride(), bi.data_ptr(), bi.stride(0), dQ, dbi),
        *(ratings.data_ptr(), *ratings.stride(), rating_kind),
        *mask_part,
        *(rank, P.dtype is torch.float64, _threads(), gradients),
        *(mu.data_ptr(), dmu, loss.data_ptr()),
        *(reg, scale, offset),
    )
    if load_kernel().mf_step(arguments):
        raise MemoryError(f"no memory for the buffers of a step of {m} users, {n} items, rank {rank}")
    return loss, grads


def multiply_and_add(rounds: int) -> float:
    """Multiply and add float32 numbers in the vector registers of all threads, from no memory.

    Returns:
        How many operations that were: over the time, the rate that no kernel on such vectors exceeds.

    Raises:
        BuildError: there is no compiled kernel.
    """
    return load_kernel().mf_multiply_and_add(_threads(), rounds)


def release_memory() -> None:
    """Free the buffers that the calling thread's steps keep for the next one, which will allocate them anew."""
    if load_kernel.cache_info().currsize:  # else there has been no step
        load_kernel().mf_release()
