"""One step as kernel launches: buffers packed and zeroed, grid and arguments, and how the result is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kernels.gpu.chunked import chunked_step
from kernels.gpu.config import Arithmetic, Config, Grid, NotShipped, Target, deal, pick, undecodable
from kernels.gpu.fused import fused_step
from kernels.gpu.reduce import sum_slices
from kernels.problem import OCCUPIED_BLOCK, Grads, Observations, Problem, squared_norms

REDUCE_BLOCK = 1024  # numbers that one program of `sum_slices` writes
FP_FUSION = {"enable_fp_fusion": True}  # set explicitly: the default depends on Triton's version


class KernelCall(NamedTuple):
    """One launch: the kernel, its grid, and its arguments by name."""

    kernel: Any
    grid: tuple[int, int]
    arguments: dict[str, Any]  # tensors and numbers; None compiles the argument away
    constants: dict[str, Any]
    options: dict[str, Any]  # of the compiler


class LaunchPlan(NamedTuple):
    """The launches of one step, in order, and the function that reads its result once they have run."""

    calls: list[KernelCall]
    result: Callable[[], tuple[Tensor, Grads | None]]


class Buffers(NamedTuple):
    """What the pass reads and writes beside ratings and mask; users and items are padded to whole tiles."""

    A: Tensor  # (users, BK), or (2, users, BK) as high and low halves
    B: Tensor  # (items, BK), or (2, items, BK)
    bu: Tensor  # (users,) user bias + global bias, less the offset of codes
    bi: Tensor  # (items,)
    scale: Tensor | None  # (1,) of codes
    tile_lists: Tensor | None  # (user blocks, tiles) int32, see `occupied_tiles`
    tile_counts: Tensor | None  # (user blocks,) int32
    sse: Tensor  # (programs, BM) float64
    dA: Tensor | None  # (splits, users, BK)
    dB: Tensor | None  # (groups or 1, items, BK)
    dbu: Tensor | None  # (splits, users), if the factors have no columns for the bias gradients
    dbi: Tensor | None  # (groups or 1, items)


def plan_launches(
    problem: Problem, target: Target, precision: str, deterministic: bool, gradients: bool,
    select: Callable[[Problem, Config], Config] = lambda problem, config: config,
) -> LaunchPlan:  # fmt: skip
    """Return the launches of one step on the problem's device.

    Only tensor operations run here, none of which waits for the device.

    Args:
        select: may replace the build that the table of tiles has.

    Raises:
        NotShipped: the kernel has no clean build for this problem.
    """
    transposed = _columns_are_contiguous(problem.observations)
    if transposed:
        problem = problem.transposed
    config = select(problem, choose(problem, target, precision, deterministic))
    exclusive = deterministic or not config.atomics  # each group adds into its own dB
    m, n, _ = problem.shape
    grid = deal(target, config, m, n, exclusive, problem.dtype.itemsize)
    buffers = pack_buffers(problem, config, grid, exclusive, gradients)
    kernel = chunked_step if config.chunk else fused_step
    arguments = launch_arguments(problem, grid, buffers, exclusive)
    constants = launch_constants(problem, config, grid, gradients)
    step = KernelCall(kernel, (grid.groups, grid.splits), arguments, constants, config.options | FP_FUSION)
    partials = (buffers.dA, buffers.dB, buffers.dbu, buffers.dbi)
    partial_sums = [sum_of_slices(partial) for partial in partials if partial is not None]
    totals = [total for total, _ in partial_sums]

    def result() -> tuple[Tensor, Grads | None]:
        loss, grads = read_result(problem, config, buffers.sse, totals)
        return loss, _untransposed(grads) if transposed and grads is not None else grads

    return LaunchPlan([step, *(call for _, call in partial_sums if call)], result)


def choose(problem: Problem, target: Target, precision: str, deterministic: bool) -> Config:
    """Return the table's build for a problem.

    Raises:
        NotShipped: there is no clean one.
    """
    observations = problem.observations
    ratings, mask, _, packed, *_ = observations
    if reason := undecodable(mask):
        raise NotShipped(reason)
    loaded = [ratings] if mask is None or packed else [ratings, mask]
    multiples = [number for t in loaded for number in (t.stride(0), t.shape[1], t.data_ptr())]
    aligned = all(t.stride(1) == 1 for t in loaded) and not any(number % 16 for number in multiples)
    form = aligned, packed, observations.weighted
    return pick(target, problem.shape[2], precision, deterministic, problem.dtype.itemsize, *form)


def pack_buffers(problem: Problem, config: Config, grid: Grid, exclusive: bool, gradients: bool) -> Buffers:
    """Return the padded operands of the pass and its outputs, zeroed where it adds."""
    m, n, rank = problem.shape
    P, Q, bu, bi, mu = (parameter.detach() for parameter in problem.parameters)
    users, items, BK = grid.user_blocks * config.BM, grid.tiles * config.BN, config.BK

    A, B = P.new_zeros(users, BK), P.new_zeros(items, BK)
    A[:m, :rank], B[:n, :rank] = P, Q
    if not config.sums:
        A[:m, rank + 1], B[:n, rank] = 1, 1
    bu_mu, bi_padded = P.new_zeros(users), P.new_zeros(items)
    bu_mu[:m], bi_padded[:n] = bu.reshape(m) + mu, bi.reshape(n)
    _, _, levels, _, occupied, *_ = problem.observations
    scale = tile_lists = tile_counts = None
    if levels is not None:
        scale, offset = levels.to(P.dtype).reshape(2, 1)
        bu_mu -= offset  # what remains to subtract is code * scale
    if occupied is not None:
        tile_lists, tile_counts = occupied_tiles(occupied, config.BM // OCCUPIED_BLOCK, config.BN // OCCUPIED_BLOCK)

    sse = P.new_empty(grid.groups * grid.splits, config.BM, dtype=torch.float64)
    dA = dB = dbu = dbi = None
    if gradients:
        db_slices = grid.groups if exclusive else 1
        dA, dB = P.new_empty(grid.splits, users, BK), P.new_zeros(db_slices, items, BK)
        if config.chunk:
            dA.zero_()  # the chunked kernel adds to it
        if config.sums:
            dbu, dbi = P.new_empty(grid.splits, users), P.new_zeros(db_slices, items)
    A, B = split_operand(A, config.arithmetic), split_operand(B, config.arithmetic)
    return Buffers(A, B, bu_mu, bi_padded, scale, tile_lists, tile_counts, sse, dA, dB, dbu, dbi)


def launch_arguments(problem: Problem, grid: Grid, buffers: Buffers, exclusive: bool) -> dict[str, Any]:
    """Return the run-time arguments of the pass by name."""
    m, n, _ = problem.shape
    ratings, mask, *_ = problem.observations
    if mask is not None and mask.dtype == torch.bool:
        mask = mask.view(torch.uint8)
    return {
        "a_ptr": buffers.A, "b_ptr": buffers.B, "bu_ptr": buffers.bu, "bi_ptr": buffers.bi,
        "ratings_ptr": ratings.detach(), "mask_ptr": mask, "scale_ptr": buffers.scale,
        "da_ptr": buffers.dA, "db_ptr": buffers.dB, "dbu_ptr": buffers.dbu, "dbi_ptr": buffers.dbi,
        "sse_ptr": buffers.sse,
        "M": m, "N": n,
        "stride_rm": ratings.stride(0), "stride_rn": ratings.stride(1),
        "stride_mm": 0 if mask is None else mask.stride(0), "stride_mn": 0 if mask is None else mask.stride(1),
        "user_blocks": grid.user_blocks, "tiles": grid.tiles, "tiles_per_split": grid.tiles_per_split,
        "tile_lists_ptr": buffers.tile_lists, "tile_counts_ptr": buffers.tile_counts,
        "db_slice": buffers.bi.shape[0] if exclusive else 0,
    }  # fmt: skip


def launch_constants(problem: Problem, config: Config, grid: Grid, gradients: bool) -> dict[str, Any]:
    """Return the compile-time constants of the pass by name."""
    constants = {
        "BM": config.BM, "BN": config.BN, "BK": config.BK, "LANES": config.lanes,
        "BITS": problem.observations.packed, "WEIGHTED": problem.observations.weighted,
        "GRADIENTS": gradients, "ATOMIC": config.atomics, "PERSISTENT": grid.groups < grid.user_blocks,
        "SPLIT": config.arithmetic.split, "PRECISION": config.arithmetic.input_precision,
    }  # fmt: skip
    return constants | ({"CHUNK": config.chunk} if config.chunk else {"SUMS": config.sums})


def read_result(problem: Problem, config: Config, sse: Tensor, totals: list[Tensor]) -> tuple[Tensor, Grads | None]:
    """Return the loss, and the gradients if `totals` has the sums of dA and dB, and of dbu and dbi where separate."""
    loss = sse.sum() + problem.reg * squared_norms(problem)
    if not totals:
        return loss, None
    m, n, rank = problem.shape
    P, Q, bu, bi, mu = (parameter.detach() for parameter in problem.parameters)
    dA, dB, *d_biases = totals
    if config.sums:
        d_user_bias, d_item_bias = d_biases[0][:m], d_biases[1][:n]
    else:
        d_user_bias, d_item_bias = dA[:m, rank], dB[:n, rank + 1]
    d_global_bias = d_user_bias.sum(dtype=torch.float64).to(P.dtype)
    return loss, Grads(
        2 * torch.add(dA[:m, :rank], P, alpha=problem.reg),
        2 * torch.add(dB[:n, :rank], Q, alpha=problem.reg),
        2 * torch.add(d_user_bias.reshape(bu.shape), bu, alpha=problem.reg),
        2 * torch.add(d_item_bias.reshape(bi.shape), bi, alpha=problem.reg),
        2 * d_global_bias.reshape(mu.shape),
    )


def sum_of_slices(partial: Tensor) -> tuple[Tensor, KernelCall | None]:
    """Return the tensor that will hold the sum over the first dimension, and the launch that fills it.

    A single slice is its own sum, without a launch.
    """
    if len(partial) == 1:
        return partial[0], None
    total = torch.empty_like(partial[0])
    length = total.numel()
    arguments = {"partial_ptr": partial, "total_ptr": total, "slices": len(partial), "length": length}
    grid = (-(-length // REDUCE_BLOCK), 1)
    return total, KernelCall(sum_slices, grid, arguments, {"BLOCK": REDUCE_BLOCK}, FP_FUSION)


def occupied_tiles(occupied: Tensor, users: int, items: int) -> tuple[Tensor, Tensor]:
    """Return the tiles of `users` x `items` blocks that hold an observed entry, and their number per user block.

    Returns:
        (user blocks, tiles) int32, in each row the occupied tiles in order, then the others, which no program visits;
        (user blocks,) int32.
    """
    rows, columns = occupied.shape
    padded = torch.nn.functional.pad(occupied, (0, -columns % items, 0, -rows % users))
    tiles = padded.unflatten(1, (-1, items)).any(2).unflatten(0, (-1, users)).any(1)
    order = torch.argsort(tiles.logical_not().to(torch.uint8), dim=1, stable=True)
    return order.to(torch.int32), tiles.sum(1, dtype=torch.int32)


def split_operand(factors: Tensor, arithmetic: Arithmetic) -> Tensor:
    """Return factors as the products read them: whole or rounded (rows, BK), or high and low halves (2, rows, BK)."""
    bits = arithmetic.split or arithmetic.rounded
    if not bits:
        return factors
    high = (factors.view(torch.int32) + (1 << (bits - 1)) & -1 << bits).view(torch.float32)
    if arithmetic.rounded:
        return high
    return torch.stack([high, factors - high]).to(getattr(torch, arithmetic.half))


def _columns_are_contiguous(observations: Observations) -> bool:
    """Return whether the ratings are best read transposed. A packed mask has no transpose."""
    return observations.ratings.stride(0) == 1 != observations.ratings.stride(1) and not observations.packed


def _untransposed(grads: Grads) -> Grads:
    d_items, d_users, d_item_bias, d_user_bias, d_global_bias = grads
    return Grads(d_users, d_items, d_user_bias, d_item_bias, d_global_bias)
