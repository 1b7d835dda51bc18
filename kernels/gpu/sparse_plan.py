"""The launches for sparse ratings: `prepare` and `finish` as for dense ones, and between them `sparse_step`."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from kernels.gpu.calls import BESIDE, ELEMENTS, GRADIENTS, OPTIONS, KernelCall, Plan, parameter_arguments
from kernels.gpu.config import Target
from kernels.gpu.finish import finish
from kernels.gpu.prepare import prepare
from kernels.gpu.sparse import sparse_step
from kernels.gpu.sparse_config import SparseConfig, pick_sparse, programs_of, share_of
from kernels.gpu.workspace import Layout, Region
from kernels.problem import Problem


class _Side(NamedTuple):
    """The walk over the rows of one side."""

    share: int  # work of a program
    programs: int


class _Buffers(NamedTuple):
    """What the launches hand to each other."""

    A: Region  # (m, BK)
    B: Region  # (n, BK)
    bu: Region  # (m,) user bias + global bias, less the offset of codes
    bi: Region  # (n,)
    terms: Region  # of the loss, float64: one for each program that walks users, then for each of `prepare`
    ticket: Region  # (1,) int32
    dA: Region | None  # (m + programs that walk users, BK)
    dB: Region | None  # (n, BK), or (n + programs that walk items, BK)
    dbu: Region | None  # (m + programs that walk users,)
    dbi: Region | None
    bias_sums: Region | None  # (programs of `finish` with users,) float64


def plan_sparse_step(problem: Problem, target: Target, deterministic: bool, gradients: bool) -> Plan:
    """Return the launches of one step, which depend on the shapes, dtypes and alignment of its tensors.

    Raises:
        NotShipped: the kernel has no clean build for this problem.
    """
    (m, n, rank), entries = problem.shape, len(problem.observations.ratings)
    config = pick_sparse(target, rank, deterministic, problem.dtype.itemsize)
    users, items = (_side(target, config, entries, rows) for rows in (m, n))
    if config.atomics or not gradients:
        items = _Side(0, 0)
    layout = Layout()
    buffers = _lay_out(layout, problem, config, users, items, gradients)
    calls = [
        _prepare_call(problem, config, users, buffers, gradients),
        _pass_call(problem, config, users, items, buffers, gradients),
    ]
    if gradients:
        calls.append(_finish_call(problem, config, users, items, buffers))
    return Plan(tuple(calls), layout.nbytes, by_item=items.programs > 0)


def _side(target: Target, config: SparseConfig, entries: int, rows: int) -> _Side:
    share = share_of(target, config, entries, rows)
    return _Side(share, programs_of(share, entries, rows))


def _rows_at_a_time(config: SparseConfig) -> int:
    """Return how many rows of a factor a program of `prepare` or `finish` holds."""
    return max(1, ELEMENTS // config.columns)


def _lay_out(
    layout: Layout, problem: Problem, config: SparseConfig, users: _Side, items: _Side, gradients: bool
) -> _Buffers:
    dtype, BK, (m, n, _), rows = problem.dtype, config.BK, problem.shape, _rows_at_a_time(config)
    A, B, bu, bi = layout.add(dtype, m, BK), layout.add(dtype, n, BK), layout.add(dtype, m), layout.add(dtype, n)
    terms = layout.add(torch.float64, users.programs + -(-m // rows) + -(-n // rows))
    ticket = layout.add(torch.int32, 1)
    dA = dB = dbu = dbi = bias_sums = None
    if gradients:
        m_and_parts, n_and_parts = m + users.programs, n + items.programs
        dA, dB = layout.add(dtype, m_and_parts, BK), layout.add(dtype, n_and_parts, BK)
        dbu, dbi = layout.add(dtype, m_and_parts), layout.add(dtype, n_and_parts)
        bias_sums = layout.add(torch.float64, -(-m // rows))
    return _Buffers(A, B, bu, bi, terms, ticket, dA, dB, dbu, dbi, bias_sums)


def _prepare_call(
    problem: Problem, config: SparseConfig, users: _Side, buffers: _Buffers, gradients: bool
) -> KernelCall:
    m, n, _ = problem.shape
    zeroed = config.atomics and gradients
    arguments = parameter_arguments(problem) | {
        "mu_ptr": "global_bias", "levels_ptr": None if problem.observations.levels is None else "levels",
        "occupied_ptr": None, "a_ptr": buffers.A, "b_ptr": buffers.B, "bu_mu_ptr": buffers.bu,
        "bi_padded_ptr": buffers.bi, "da_ptr": None, "db_ptr": buffers.dB if zeroed else None,
        "dbi_ptr": buffers.dbi if zeroed else None, "tile_lists_ptr": None, "tile_counts_ptr": None,
        "terms_ptr": buffers.terms, "ticket_ptr": buffers.ticket, "users": m, "items": n,
        "stride_om": 0, "stride_on": 0, "da_slices": 0, "db_slices": int(zeroed), "programs": users.programs,
        "tiles": 0,
    }  # fmt: skip
    constants = {
        "ROWS": _rows_at_a_time(config), "COLUMNS": config.columns, "BK": config.BK, "ONES": False, "SPLIT": 0,
        "ROUNDED": 0, "BLOCK_USERS": 1, "BLOCK_ITEMS": 1,
    }  # fmt: skip
    return KernelCall(prepare, (buffers.terms.shape[0] - users.programs, 1), arguments, constants, BESIDE | OPTIONS)


def _pass_call(
    problem: Problem, config: SparseConfig, users: _Side, items: _Side, buffers: _Buffers, gradients: bool
) -> KernelCall:
    m, n, _ = problem.shape
    arguments: dict[str, Any] = {
        "a_ptr": buffers.A, "b_ptr": buffers.B, "bu_ptr": buffers.bu, "bi_ptr": buffers.bi,
        "users_ptr": "rows", "items_ptr": "columns", "ratings_ptr": "ratings",
        "item_pointers_ptr": "item_rows" if items.programs else None,
        "item_users_ptr": "item_columns" if items.programs else None,
        "item_ratings_ptr": "item_ratings" if items.programs else None,
        "scale_ptr": None if problem.observations.levels is None else "levels",
        "da_ptr": buffers.dA, "dbu_ptr": buffers.dbu, "db_ptr": buffers.dB, "dbi_ptr": buffers.dbi,
        "terms_ptr": buffers.terms, "loss_ptr": None if gradients else "loss",
        "ticket_ptr": None if gradients else buffers.ticket,
        "M": m, "N": n, "terms": buffers.terms.shape[0], "user_programs": users.programs,
        "user_share": users.share, "item_share": items.share,
    }  # fmt: skip
    constants = {"ENTRIES": config.entries, "COLUMNS": config.columns, "BK": config.BK, "GRADIENTS": gradients}
    grid = (users.programs + items.programs, 1)
    return KernelCall(sparse_step, grid, arguments, constants, config.options | OPTIONS)


def _finish_call(problem: Problem, config: SparseConfig, users: _Side, items: _Side, buffers: _Buffers) -> KernelCall:
    m, n, _ = problem.shape
    rows = _rows_at_a_time(config)
    arguments = parameter_arguments(problem) | {
        "da_ptr": buffers.dA, "db_ptr": buffers.dB, "dbu_ptr": buffers.dbu, "dbi_ptr": buffers.dbi,
        "terms_ptr": buffers.terms, "bias_sums_ptr": buffers.bias_sums, "ticket_ptr": buffers.ticket,
        "user_pointers_ptr": "rows", "item_pointers_ptr": "item_rows" if items.programs else None,
        "loss_ptr": "loss",
        **dict(zip(("d_p_ptr", "d_q_ptr", "d_bu_ptr", "d_bi_ptr", "d_mu_ptr"), GRADIENTS, strict=True)),
        "users": m, "items": n, "splits": 1, "db_slices": 1, "terms": buffers.terms.shape[0],
        "user_share": users.share, "item_share": items.share,
    }  # fmt: skip
    constants = {"ROWS": rows, "COLUMNS": config.columns, "BK": config.BK}
    return KernelCall(finish, (-(-m // rows) + -(-n // rows), 1), arguments, constants, BESIDE | OPTIONS)
