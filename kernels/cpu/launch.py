"""Backend `native`: passes one step to the compiled CPU kernel."""

from __future__ import annotations

import struct
from functools import cache

import torch
from torch import Tensor

from kernels.cpu.build import BuildError, load_kernel
from kernels.cpu.threads import step_threads
from kernels.csr import LARGEST_INT32, indices_of, with_rising_columns
from kernels.problem import Grads, Observations, Problem, check_memory, empty_gradient

# Values of `RatingKind` and `MaskKind` in dtypes.h. An integer mask's kind is the bytes of an element.
CODES, BITS = 6, 16
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
    torch.float64: 17,
    torch.float32: 18,
    torch.bfloat16: 19,
    torch.float16: 20,
    torch.float8_e5m2: 21,
    torch.float8_e4m3fn: 22,
}
# Layout of `Call` in call.h: two `Parameters` of 8 fields, two `Matrix` of 4, 4 integers, 3 pointers, 3 doubles.
CALL = struct.Struct("=16q 8q 4q 3q 3d")
# Layout of `Entries` in entries.h: row pointers, items, their number, bytes of an item's index, a `Matrix` of ratings.
ENTRIES = struct.Struct("=4q 4q")


@cache
def _template() -> Tensor:
    """Return a template of the loss for `empty_like`, which costs half of `empty`."""
    return torch.empty((), dtype=torch.float64, device="cpu")


@cache
def _reason() -> str:
    """Return why the kernel cannot run on this machine, empty if it can."""
    try:
        load_kernel()
    except BuildError as error:
        return str(error)
    return ""


def unavailable(problem: Problem | None = None, precision: str = "ieee", deterministic: bool = False) -> str:
    """Return why the kernel cannot run `problem`, or anything on this machine if it is None; empty if it can."""
    reason = _reason()
    if reason or problem is None:
        return reason
    ratings, mask, *_ = problem.observations
    if problem.observations.items > LARGEST_INT32:
        return f"this kernel takes at most {LARGEST_INT32} items of sparse ratings"
    if not ratings.is_cpu:
        return f"the tensors are on {problem.device}, not on the CPU"
    if ratings.dtype not in RATING_KINDS:
        return f"this kernel does not decode ratings of {ratings.dtype}; encode_ratings stores them in fewer bytes"
    if mask is not None and mask.dtype not in MASK_KINDS:
        return f"this kernel does not decode masks of {mask.dtype}"
    return ""


def step(problem: Problem, precision: str, deterministic: bool, gradients: bool) -> tuple[Tensor, Grads | None]:
    """Return the loss (0-d float64) and, if requested, the gradients of one step.

    With the same number of threads results are bitwise the same, `deterministic` or not. The arithmetic is that of the
    parameters' dtype, whatever the `precision`.

    Raises:
        MemoryError: the kernel's buffers could not be allocated.
    """
    check_memory(problem)
    P, Q, bu, bi, mu = problem.parameters
    entries = None
    if problem.observations.rows is not None:
        entries = _sorted_entries(problem.observations)
    ratings, mask, levels, packed, *_ = problem.observations if entries is None else entries
    m, rank = P.shape
    n = Q.shape[0]
    pointers = (P.data_ptr(), Q.data_ptr(), bu.data_ptr(), bi.data_ptr(), mu.data_ptr(), ratings.data_ptr())
    loss = torch.empty_like(_template())
    grads = None
    d_pointers: tuple[int, ...] = (0, 0, 0, 0, 0)
    if gradients:
        grads = Grads._make(map(empty_gradient, problem.parameters))
        d_pointers = tuple([d.data_ptr() for d in grads])
    dP, dQ, dbu, dbi, dmu = d_pointers
    rating_kind = RATING_KINDS[ratings.dtype] if levels is None else CODES
    mask_part: tuple[int, ...] = (0, 0, 0, 0)
    if mask is not None:
        mask_part = (mask.data_ptr(), *mask.stride(), BITS if packed else MASK_KINDS[mask.dtype])
    scale, offset = (0.0, 0.0) if levels is None else levels.tolist()
    arguments = CALL.pack(
        *(m, pointers[0], *P.stride(), pointers[2], bu.stride(0), dP, dbu),
        *(n, pointers[1], *Q.stride(), pointers[3], bi.stride(0), dQ, dbi),
        *(pointers[5], *(ratings.stride() if entries is None else (0, 1)), rating_kind),
        *mask_part,
        *(rank, P.dtype is torch.float64, step_threads(), gradients),
        *(pointers[4], dmu, loss.data_ptr()),
        *(problem.reg, scale, offset),
    )
    kernel = load_kernel()
    if kernel.mf_step(arguments) if entries is None else kernel.mf_sparse_step(arguments + _pack(entries)):
        raise MemoryError(f"out of memory for the buffers of a step of {m} users, {n} items, rank {rank}")
    return loss, grads


def _sorted_entries(observations: Observations) -> Observations:
    """Return sparse ratings with contiguous tensors, int64 row pointers, and rising columns in every row.

    Raises:
        ValueError: an index is out of range or repeated.
    """
    entries = with_rising_columns(observations, _columns_rise)
    ratings, (rows, columns) = entries.ratings, indices_of(entries)
    if rows.dtype is torch.int64 and rows.is_contiguous() and columns.is_contiguous() and ratings.is_contiguous():
        return entries
    rows, columns = rows.to(torch.int64).contiguous(), columns.contiguous()
    return entries._replace(ratings=ratings.contiguous(), rows=rows, columns=columns)


def _columns_rise(observations: Observations) -> bool:
    """Return whether the indices of sparse ratings are valid and rise in every row."""
    rows, columns = indices_of(observations)
    entries = observations._replace(rows=rows.to(torch.int64).contiguous(), columns=columns.contiguous())
    return bool(load_kernel().mf_rows_are_sorted(_pack(entries), *observations.shape, step_threads()))


def _pack(entries: Observations) -> bytes:
    rows, columns = indices_of(entries)
    kind = CODES if entries.levels is not None else RATING_KINDS[entries.ratings.dtype]
    ratings = entries.ratings.data_ptr(), 0, 1, kind
    return ENTRIES.pack(rows.data_ptr(), columns.data_ptr(), columns.shape[0], columns.itemsize, *ratings)


def multiply_and_add(rounds: int) -> float:
    """Run fused multiply-adds of float32 vectors on all threads, in registers only.

    Returns:
        The number of floating-point operations; divided by the time, an upper bound on any kernel's rate.

    Raises:
        BuildError: the kernel cannot be compiled here.
    """
    return float(load_kernel().mf_multiply_and_add(step_threads(), rounds))


def release_memory() -> None:
    """Free the buffers that the calling thread keeps between steps; the next step allocates them again."""
    if load_kernel.cache_info().currsize:  # otherwise no step has run
        load_kernel().mf_release()
