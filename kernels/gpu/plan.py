"""One step as three launches: their kernels, grids and arguments, from the layout of a problem alone.

`prepare` packs the factors and zeroes what is added to, the pass (`fused_step` or `chunked_step`) reads the ratings,
`finish` sums slices and regularises. Without gradients the pass itself finishes, so there are two. Launches for sparse
ratings are planned in sparse_plan.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from kernels.gpu.calls import (
    BESIDE,
    ELEMENTS,
    GRADIENTS,
    OPTIONS,
    KernelCall,
    LaunchPlan,
    Plan,
    bind,
    parameter_arguments,
)
from kernels.gpu.chunked import chunked_step
from kernels.gpu.config import Config, Grid, NotShipped, Target, deal, pick, undecodable
from kernels.gpu.finish import finish
from kernels.gpu.fused import fused_step
from kernels.gpu.prepare import prepare
from kernels.gpu.sparse_plan import plan_sparse_step
from kernels.gpu.workspace import Layout, Region
from kernels.problem import OCCUPIED_BLOCK, Observations, Problem

OPPOSITE = {"user_factors": "item_factors", "item_factors": "user_factors", "user_bias": "item_bias",
            "item_bias": "user_bias", "d_user_factors": "d_item_factors", "d_item_factors": "d_user_factors",
            "d_user_bias": "d_item_bias", "d_item_bias": "d_user_bias"}  # fmt: skip


class Buffers(NamedTuple):
    """What the launches hand to each other; users and items are padded to whole tiles."""

    A: Region  # (users, BK), or (2, users, BK) as high and low halves
    B: Region  # (items, BK), or (2, items, BK)
    bu: Region  # (users,) user bias + global bias, less the offset of codes
    bi: Region  # (items,)
    tile_lists: Region | None  # (user blocks, tiles) int32: the occupied tiles, in order
    tile_counts: Region | None  # (user blocks,) int32
    terms: Region  # of the loss, float64: one for each program of the pass, then for each of `prepare` with rows
    ticket: Region  # (1,) int32
    dA: Region | None  # (splits, users, BK)
    dB: Region | None  # (groups or 1, items, BK)
    dbu: Region | None  # (splits, users), if the factors have no columns for the bias gradients
    dbi: Region | None  # (groups or 1, items)
    bias_sums: Region | None  # (programs of `finish` with users,) float64


def plan_launches(
    problem: Problem, target: Target, precision: str, deterministic: bool, gradients: bool,
    select: Callable[[Problem, Config], Config] = lambda problem, config: config,
) -> LaunchPlan:  # fmt: skip
    """Return the launches of one step with their tensors, those of `plan_step`."""
    return bind(plan_step(problem, target, precision, deterministic, gradients, select), problem, gradients)


def plan_step(
    problem: Problem, target: Target, precision: str, deterministic: bool, gradients: bool,
    select: Callable[[Problem, Config], Config] = lambda problem, config: config,
) -> Plan:  # fmt: skip
    """Return the launches of one step, which depend on the shapes, dtypes, strides and alignment of its tensors.

    Args:
        select: may replace the build that the table of tiles has.

    Raises:
        NotShipped: the kernel has no clean build for this problem.
    """
    if problem.observations.sparse:
        return plan_sparse_step(problem, target, deterministic, gradients)
    transposed = _columns_are_contiguous(problem.observations)
    if transposed:
        problem = problem.transposed
    config = select(problem, choose(problem, target, precision, deterministic))
    exclusive = deterministic or not config.atomics  # each group adds into its own dB
    m, n, _ = problem.shape
    grid = deal(target, config, m, n, exclusive, problem.dtype.itemsize)
    layout = Layout()
    buffers = lay_out(layout, problem, config, grid, exclusive, gradients)
    calls = [
        prepare_call(problem, config, grid, buffers, gradients),
        pass_call(problem, config, grid, buffers, exclusive, gradients),
    ]
    if gradients:
        calls.append(finish_call(problem, config, buffers))
    if transposed:
        calls = [call._replace(arguments={k: _opposite(v) for k, v in call.arguments.items()}) for call in calls]
    return Plan(tuple(calls), layout.nbytes)


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


def lay_out(layout: Layout, problem: Problem, config: Config, grid: Grid, exclusive: bool, gradients: bool) -> Buffers:
    """Return the regions that a step needs, added to the layout."""
    dtype = problem.dtype
    users, items, BK = grid.user_blocks * config.BM, grid.tiles * config.BN, config.BK
    rows, _ = rows_and_columns(problem, config)
    halves = (2,) if config.arithmetic.split else ()
    operand = getattr(torch, config.arithmetic.half) if halves else dtype
    A, B = layout.add(operand, *halves, users, BK), layout.add(operand, *halves, items, BK)
    bu, bi = layout.add(dtype, users), layout.add(dtype, items)
    tile_lists = tile_counts = None
    if problem.observations.occupied is not None:
        tile_lists = layout.add(torch.int32, grid.user_blocks, grid.tiles)
        tile_counts = layout.add(torch.int32, grid.user_blocks)
    terms = layout.add(torch.float64, grid.groups * grid.splits + -(-users // rows) + -(-items // rows))
    ticket = layout.add(torch.int32, 1)
    dA = dB = dbu = dbi = bias_sums = None
    if gradients:
        db_slices = grid.groups if exclusive else 1
        dA, dB = layout.add(dtype, grid.splits, users, BK), layout.add(dtype, db_slices, items, BK)
        if config.sums:
            dbu, dbi = layout.add(dtype, grid.splits, users), layout.add(dtype, db_slices, items)
        bias_sums = layout.add(torch.float64, -(-problem.shape[0] // rows))
    return Buffers(A, B, bu, bi, tile_lists, tile_counts, terms, ticket, dA, dB, dbu, dbi, bias_sums)


def rows_and_columns(problem: Problem, config: Config) -> tuple[int, int]:
    """Return what a program of `prepare` or `finish` holds of a factor at a time."""
    columns = config.chunk or config.BK
    elements = ELEMENTS if problem.dtype.itemsize == 4 else ELEMENTS // 2  # of float64, as many bytes
    return max(1, elements // columns), columns


def prepare_call(problem: Problem, config: Config, grid: Grid, buffers: Buffers, gradients: bool) -> KernelCall:
    """Return the launch of `prepare`."""
    _, _, levels, _, occupied, *_ = problem.observations
    rows, columns = rows_and_columns(problem, config)
    programs = grid.groups * grid.splits
    with_rows = buffers.terms.shape[0] - programs
    arguments = parameter_arguments(problem) | {
        "mu_ptr": "global_bias", "levels_ptr": None if levels is None else "levels",
        "occupied_ptr": None if occupied is None else "occupied",
        "a_ptr": buffers.A, "b_ptr": buffers.B, "bu_mu_ptr": buffers.bu, "bi_padded_ptr": buffers.bi,
        "da_ptr": buffers.dA if config.chunk else None, "db_ptr": buffers.dB, "dbi_ptr": buffers.dbi,
        "tile_lists_ptr": buffers.tile_lists, "tile_counts_ptr": buffers.tile_counts,
        "terms_ptr": buffers.terms, "ticket_ptr": buffers.ticket,
        "users": buffers.bu.shape[0], "items": buffers.bi.shape[0],
        "stride_om": 0 if occupied is None else occupied.stride(0),
        "stride_on": 0 if occupied is None else occupied.stride(1),
        "da_slices": grid.splits, "db_slices": buffers.dB.shape[0] if buffers.dB else 0,
        "programs": programs, "tiles": grid.tiles,
    }  # fmt: skip
    constants = {
        "ROWS": rows, "COLUMNS": columns, "BK": config.BK, "ONES": not config.sums,
        "SPLIT": config.arithmetic.split, "ROUNDED": config.arithmetic.rounded,
        "BLOCK_USERS": 1, "BLOCK_ITEMS": 1,  # unused without `occupied`: one kernel then serves every tile
    }  # fmt: skip
    lists = 0
    if occupied is not None:
        lists = grid.user_blocks
        constants |= {"BLOCK_USERS": config.BM // OCCUPIED_BLOCK, "BLOCK_ITEMS": config.BN // OCCUPIED_BLOCK}
    return KernelCall(prepare, (with_rows + lists, 1), arguments, constants, BESIDE | OPTIONS)


def pass_call(
    problem: Problem, config: Config, grid: Grid, buffers: Buffers, exclusive: bool, gradients: bool
) -> KernelCall:
    """Return the launch of the pass."""
    m, n, _ = problem.shape
    ratings, mask, levels, packed, *_ = problem.observations
    arguments = {
        "a_ptr": buffers.A, "b_ptr": buffers.B, "bu_ptr": buffers.bu, "bi_ptr": buffers.bi,
        "ratings_ptr": "ratings", "mask_ptr": None if mask is None else "mask",
        "scale_ptr": None if levels is None else "levels",
        "da_ptr": buffers.dA, "db_ptr": buffers.dB, "dbu_ptr": buffers.dbu, "dbi_ptr": buffers.dbi,
        "terms_ptr": buffers.terms,
        "loss_ptr": None if gradients else "loss", "ticket_ptr": None if gradients else buffers.ticket,
        "M": m, "N": n, "terms": buffers.terms.shape[0],
        "stride_rm": ratings.stride(0), "stride_rn": ratings.stride(1),
        "stride_mm": 0 if mask is None else mask.stride(0), "stride_mn": 0 if mask is None else mask.stride(1),
        "user_blocks": grid.user_blocks, "tiles": grid.tiles, "tiles_per_split": grid.tiles_per_split,
        "tile_lists_ptr": buffers.tile_lists, "tile_counts_ptr": buffers.tile_counts,
        "db_slice": buffers.bi.shape[0] if exclusive else 0,
    }  # fmt: skip
    constants = {
        "BM": config.BM, "BN": config.BN, "BK": config.BK, "LANES": config.lanes,
        "ADJACENT": config.adjacent, "BITS": packed, "WEIGHTED": problem.observations.weighted,
        "GRADIENTS": gradients, "ATOMIC": config.atomics, "PERSISTENT": grid.groups < grid.user_blocks,
        "SPLIT": config.arithmetic.split, "PRECISION": config.arithmetic.input_precision,
    }  # fmt: skip
    depth = config.depth or config.BK
    constants |= {"CHUNK": config.chunk} if config.chunk else {"SUMS": config.sums, "DEPTH": depth}
    kernel = chunked_step if config.chunk else fused_step
    return KernelCall(kernel, (grid.groups, grid.splits), arguments, constants, config.options | OPTIONS)


def finish_call(problem: Problem, config: Config, buffers: Buffers) -> KernelCall:
    """Return the launch of `finish`."""
    assert buffers.dA  # there are gradients
    assert buffers.dB
    m, n, _ = problem.shape
    rows, columns = rows_and_columns(problem, config)
    arguments = parameter_arguments(problem) | {
        "da_ptr": buffers.dA, "db_ptr": buffers.dB, "dbu_ptr": buffers.dbu, "dbi_ptr": buffers.dbi,
        "terms_ptr": buffers.terms, "bias_sums_ptr": buffers.bias_sums, "ticket_ptr": buffers.ticket,
        "loss_ptr": "loss",
        **dict(zip(("d_p_ptr", "d_q_ptr", "d_bu_ptr", "d_bi_ptr", "d_mu_ptr"), GRADIENTS, strict=True)),
        "users": buffers.bu.shape[0], "items": buffers.bi.shape[0],
        "splits": buffers.dA.shape[0], "db_slices": buffers.dB.shape[0], "terms": buffers.terms.shape[0],
        "user_pointers_ptr": None, "item_pointers_ptr": None, "user_share": 0, "item_share": 0,
    }  # fmt: skip
    constants = {"ROWS": rows, "COLUMNS": columns, "BK": config.BK}
    return KernelCall(finish, (-(-m // rows) + -(-n // rows), 1), arguments, constants, BESIDE | OPTIONS)


def _columns_are_contiguous(observations: Observations) -> bool:
    """Return whether the ratings are best read transposed. A packed mask has no transpose."""
    return observations.ratings.stride(0) == 1 != observations.ratings.stride(1) and not observations.packed


def _opposite(value: Any) -> Any:
    """Return the name of the same operand in the transposed problem, and any other value unchanged."""
    return OPPOSITE.get(value, value) if isinstance(value, str) else value
