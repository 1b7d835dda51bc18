"""One step as kernel launches: buffers packed and zeroed, grid and arguments, and how the result is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kernels.gpu.chunked import chunked_step
from kernels.gpu.config import Arithmetic, Config, Target, deal, pick
from kernels.gpu.fused import fused_step
from kernels.gpu.reduce import sum_slices
from kernels.problem import OCCUPIED_BLOCK, Grads, Problem, squared_norms

REDUCE_BLOCK = 1024
FP_FUSION = {"enable_fp_fusion": True}  # the default depends on Triton's version


class KernelCall(NamedTuple):
    """One launch: the kernel, its grid, and its arguments by name."""

    kernel: Any
    grid: tuple[int, int]
    arguments: dict[str, Any]  # tensors and numbers; None compiles the argument away
    constants: dict[str, Any]
    options: dict[str, Any]  # of the compiler


class Plan(NamedTuple):
    """The launches of one step, in order, and the reading of its result once they have run."""

    calls: list[KernelCall]
    result: Callable[[], tuple[Tensor, Grads | None]]


def plan_step(
    problem: Problem, target: Target, precision: str, deterministic: bool, gradients: bool,
    select: Callable[[Problem, Config], Config] = lambda problem, config: config,
) -> Plan:  # fmt: skip
    """The launches of one step on the problem's device; only tensor operations, nothing that waits for the device.

    Args:
        select: may put another build in the place of the table's.

    Raises:
        NotShipped: the kernel has no clean build for this.
    """
    if problem.ratings.stride(0) == 1 != problem.ratings.stride(1) and not problem.packed:
        transposed = plan_step(_transposed(problem), target, precision, deterministic, gradients, select)
        return Plan(transposed.calls, lambda: _untransposed(*transposed.result()))
    config = select(problem, choose(problem, target, precision, deterministic))
    m, n, rank = problem.shape
    P, Q, bu, bi, mu = (parameter.detach() for parameter in problem.parameters)
    exclusive = deterministic or not config.atomics  # each program adds into a dB of its own
    grid = deal(target, config, m, n, exclusive, P.element_size())
    users, items = grid.user_blocks * config.BM, grid.tiles * config.BN
    BK = config.BK

    A, B = P.new_zeros(users, BK), P.new_zeros(items, BK)
    A[:m, :rank], B[:n, :rank] = P, Q
    if not config.sums:
        A[:m, rank + 1], B[:n, rank] = 1, 1
    A, B = _operand(A, config.arithmetic), _operand(B, config.arithmetic)
    bu_mu, bi_packed = P.new_zeros(users), P.new_zeros(items)
    bu_mu[:m], bi_packed[:n] = bu.reshape(m) + mu, bi.reshape(n)
    scale = None
    if problem.grid is not None:
        scale, offset = problem.grid.to(P.dtype).split(1)
        bu_mu -= offset  # so that only code * scale is left to subtract

    db_slices = grid.groups if exclusive else 1
    walks = lengths = None
    if problem.occupied is not None:
        walks, lengths = _walks(problem.occupied, config.BM // OCCUPIED_BLOCK, config.BN // OCCUPIED_BLOCK)
    sse = P.new_empty(grid.groups * grid.splits, config.BM, dtype=torch.float64)
    dA = dB = dbu = dbi = None
    if gradients:
        dA, dB = P.new_empty(grid.splits, users, BK), P.new_zeros(db_slices, items, BK)
        if config.chunk:
            dA.zero_()  # it is added to
        if config.sums:
            dbu, dbi = P.new_empty(grid.splits, users), P.new_zeros(db_slices, items)

    mask = problem.mask
    if mask is not None and mask.dtype == torch.bool:
        mask = mask.view(torch.uint8)
    arguments = {
        "a_ptr": A, "b_ptr": B, "bu_ptr": bu_mu, "bi_ptr": bi_packed,
        "ratings_ptr": problem.ratings.detach(), "mask_ptr": mask, "scale_ptr": scale,
        "da_ptr": dA, "db_ptr": dB, "dbu_ptr": dbu, "dbi_ptr": dbi, "sse_ptr": sse,
        "M": m, "N": n,
        "stride_rm": problem.ratings.stride(0), "stride_rn": problem.ratings.stride(1),
        "stride_mm": 0 if mask is None else mask.stride(0), "stride_mn": 0 if mask is None else mask.stride(1),
        "user_blocks": grid.user_blocks, "tiles": grid.tiles, "tiles_per_split": grid.tiles_per_split,
        "walks_ptr": walks, "lengths_ptr": lengths,
        "db_slice": items if exclusive else 0,
    }  # fmt: skip
    constants = {
        "BM": config.BM, "BN": config.BN, "BK": BK, "LANES": config.lanes,
        "BITS": problem.packed, "GRADIENTS": gradients,
        "ATOMIC": config.atomics, "PERSISTENT": grid.groups < grid.user_blocks,
        "SPLIT": config.arithmetic.split, "PRECISION": config.arithmetic.input_precision,
    }  # fmt: skip
    kernel, form = (chunked_step, {"CHUNK": config.chunk}) if config.chunk else (fused_step, {"SUMS": config.sums})
    options = config.options | FP_FUSION
    step = KernelCall(kernel, (grid.groups, grid.splits), arguments, constants | form, options)
    sums = [_Sum(partial) for partial in (dA, dB, dbu, dbi) if partial is not None]

    def result() -> tuple[Tensor, Grads | None]:
        loss = sse.sum() + problem.reg * squared_norms(problem)
        if not gradients:
            return loss, None
        d_users, d_items, *d_biases = (total.total for total in sums)
        if config.sums:
            d_user_bias, d_item_bias = d_biases[0][:m], d_biases[1][:n]
        else:
            d_user_bias, d_item_bias = d_users[:m, rank], d_items[:n, rank + 1]
        d_global_bias = d_user_bias.sum(dtype=torch.float64).to(P.dtype)
        return loss, Grads(
            2 * torch.add(d_users[:m, :rank], P, alpha=problem.reg),
            2 * torch.add(d_items[:n, :rank], Q, alpha=problem.reg),
            2 * torch.add(d_user_bias.reshape(bu.shape), bu, alpha=problem.reg),
            2 * torch.add(d_item_bias.reshape(bi.shape), bi, alpha=problem.reg),
            2 * d_global_bias.reshape(mu.shape),
        )

    return Plan([step, *(total.call for total in sums if total.call)], result)


def choose(problem: Problem, target: Target, precision: str, deterministic: bool) -> Config:
    """The build for a problem.

    Raises:
        NotShipped: there is no clean one.
    """
    loaded = [problem.ratings] if problem.mask is None or problem.packed else [problem.ratings, problem.mask]
    multiples = [number for t in loaded for number in (t.stride(0), t.shape[1], t.data_ptr())]
    aligned = all(t.stride(1) == 1 for t in loaded) and not any(number % 16 for number in multiples)
    parameter_bytes = problem.user_factors.element_size()
    return pick(target, problem.shape[2], precision, deterministic, parameter_bytes, aligned, problem.packed)


def _transposed(problem: Problem) -> Problem:
    """The same problem with users and items exchanged, so that rows of ratings are contiguous."""
    return problem._replace(
        user_factors=problem.item_factors, item_factors=problem.user_factors,
        user_bias=problem.item_bias, item_bias=problem.user_bias,
        ratings=problem.ratings.T, mask=None if problem.mask is None else problem.mask.T,
        occupied=None if problem.occupied is None else problem.occupied.T,
    )  # fmt: skip


def _untransposed(loss: Tensor, grads: Grads | None) -> tuple[Tensor, Grads | None]:
    if grads is None:
        return loss, None
    d_items, d_users, d_item_bias, d_user_bias, d_global_bias = grads
    return loss, Grads(d_users, d_items, d_user_bias, d_item_bias, d_global_bias)


def _walks(occupied: Tensor, users: int, items: int) -> tuple[Tensor, Tensor]:
    """The tiles of `users` x `items` blocks that hold an observed entry, and how many they are for each block of users.

    (user blocks, tiles) int32, row by row the occupied ones in order, then the rest, which nothing walks;
    (user blocks,) int32.
    """
    rows, columns = occupied.shape
    padded = torch.nn.functional.pad(occupied, (0, -columns % items, 0, -rows % users))
    tiles = padded.unflatten(1, (-1, items)).any(2).unflatten(0, (-1, users)).any(1)
    order = torch.argsort(tiles.logical_not().to(torch.uint8), dim=1, stable=True)
    return order.to(torch.int32), tiles.sum(1, dtype=torch.int32)


def _operand(factors: Tensor, arithmetic: Arithmetic) -> Tensor:
    """Factors as the products take them: whole, rounded, or as a high and a low half. (rows, BK) or (2, rows, BK)"""
    bits = arithmetic.split or arithmetic.rounded
    if not bits:
        return factors
    high = (factors.view(torch.int32) + (1 << (bits - 1)) & -1 << bits).view(torch.float32)
    if arithmetic.rounded:
        return high
    return torch.stack([high, factors - high]).to(getattr(torch, arithmetic.half))


class _Sum:
    """The sum of the slices of a partial gradient: itself where there is one slice, else a launch."""

    def __init__(self, partial: Tensor):
        self.call: KernelCall | None = None
        self.total = partial[0]
        if len(partial) > 1:
            self.total = torch.empty_like(partial[0])
            length = self.total.numel()
            arguments = {"partial_ptr": partial, "total_ptr": self.total, "slices": len(partial), "length": length}
            grid = (-(-length // REDUCE_BLOCK), 1)
            self.call = KernelCall(sum_slices, grid, arguments, {"BLOCK": REDUCE_BLOCK}, FP_FUSION)
