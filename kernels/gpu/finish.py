"""The last launch: slices of partial gradients summed in a fixed order, regularised and doubled; the loss.

    dP = 2 (sum of dA slices + reg P), likewise dQ, dbu and dbi;  dmu = 2 sum of dbu before regularisation

Of sparse ratings there is one slice; the parts of long rows follow its rows, one for each program (sparse.py). The last
program to get there adds up the loss and dmu.
"""

import triton
import triton.language as tl
from triton.language import max as tl_max  # global names of this module, so that interpret.py can replace them
from triton.language import sum as tl_sum

from kernels.gpu.reduce import is_last_program, store_sum
from kernels.gpu.sparse import ROW_COST

UNROLLED = tl.constexpr(8)  # parts of a row loaded at a time


@triton.jit(do_not_specialize=[
    "M", "N", "rank", "users", "items", "stride_pm", "stride_pk", "stride_qn", "stride_qk", "stride_bu", "stride_bi",
    "splits", "db_slices", "terms", "user_share", "item_share",
])  # fmt: skip
def finish(
    p_ptr, q_ptr, bu_ptr, bi_ptr,  # parameters: (M, rank), (N, rank), (M,), (N,)
    da_ptr, db_ptr,  # (splits, users, BK), (db_slices, items, BK)
    dbu_ptr, dbi_ptr,  # (splits, users), (db_slices, items); None: column rank of dA and rank + 1 of dB
    terms_ptr,  # (terms,) of the loss
    bias_sums_ptr, ticket_ptr,  # (programs with users,); 0
    user_pointers_ptr, item_pointers_ptr,  # of sparse ratings, (M + 1,) and (N + 1,), if dA and dB have parts; or None
    loss_ptr, d_p_ptr, d_q_ptr, d_bu_ptr, d_bi_ptr, d_mu_ptr,  # results, contiguous, shaped as the parameters
    reg: tl.float64,
    M, N, rank, users, items,
    stride_pm, stride_pk, stride_qn, stride_qk, stride_bu, stride_bi,
    splits, db_slices, terms, user_share, item_share,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    program, user_programs = tl.program_id(0), (M + ROWS - 1) // ROWS
    reg = tl.full([], reg, p_ptr.dtype.element_ty)
    if program < user_programs:
        row = program * ROWS + tl.arange(0, ROWS)
        user_parts = None if user_pointers_ptr is None else parts_of(user_pointers_ptr, user_share, row, M)
        finish_factors(da_ptr, splits, user_parts, p_ptr, stride_pm, stride_pk, d_p_ptr, reg, row, M, users, rank,
                       ROWS, COLUMNS, BK)  # fmt: skip
        d_bu = finish_bias(da_ptr + rank, dbu_ptr, splits, user_parts, bu_ptr, stride_bu, d_bu_ptr, reg,
                           row, M, users, ROWS, BK)  # fmt: skip
        tl.store(bias_sums_ptr + program, tl_sum(d_bu.to(tl.float64), 0))
    else:
        row = (program - user_programs) * ROWS + tl.arange(0, ROWS)
        item_parts = None if item_pointers_ptr is None else parts_of(item_pointers_ptr, item_share, row, N)
        finish_factors(db_ptr, db_slices, item_parts, q_ptr, stride_qn, stride_qk, d_q_ptr, reg, row, N, items, rank,
                       ROWS, COLUMNS, BK)  # fmt: skip
        finish_bias(db_ptr + rank + 1, dbi_ptr, db_slices, item_parts, bi_ptr, stride_bi, d_bi_ptr, reg,
                    row, N, items, ROWS, BK)  # fmt: skip
    last = is_last_program(ticket_ptr)
    store_sum(loss_ptr, terms_ptr, terms, 1, last)
    store_sum(d_mu_ptr, bias_sums_ptr, user_programs, 2, last)


@triton.jit
def parts_of(pointers_ptr, share, row, rows):
    """Return the first program that continues each row, and how many do, int64 [ROWS] each."""
    inside, row = row < rows, row.to(tl.int64)
    begin = tl.load(pointers_ptr + row, mask=inside, other=0).to(tl.int64) + row * ROW_COST
    end = tl.load(pointers_ptr + row + 1, mask=inside, other=0).to(tl.int64) + (row + 1) * ROW_COST
    first = begin // share + 1
    return first, tl.where(inside, (end - 1) // share + 1 - first, 0)


@triton.jit
def finish_factors(
    slices_ptr, slices, parts, factors_ptr, stride_row, stride_column, grad_ptr, reg, row, rows, padded, rank,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Write some rows of a factor's gradient."""
    dtype = grad_ptr.dtype.element_ty
    row_offs = row[:, None].to(tl.int64)  # [ROWS, 1]
    for first in range(0, BK, COLUMNS):
        column = first + tl.arange(0, COLUMNS)[None, :]  # [1, COLUMNS]
        inside = (row < rows)[:, None] & (column < rank)
        total = tl.full([ROWS, COLUMNS], 0, dtype)
        for i in range(slices):
            slice_row = tl.cast(i, tl.int64) * padded + row_offs
            total += tl.load(slices_ptr + slice_row * BK + column, mask=inside, other=0)
        if parts is not None:
            begun, count = parts
            part_ptrs = slices_ptr + (padded + begun)[:, None] * BK + column
            for i in tl.range(0, tl_max(count, 0), loop_unroll_factor=UNROLLED):
                total += tl.load(part_ptrs + i * BK, mask=inside & (i < count)[:, None], other=0)
        factors_ptrs = factors_ptr + row_offs * stride_row + column.to(tl.int64) * stride_column
        total += reg * tl.load(factors_ptrs, mask=inside, other=0)
        tl.store(grad_ptr + row_offs * rank + column, 2 * total, mask=inside)


@triton.jit
def finish_bias(
    column_ptr, slices_ptr, slices, parts, bias_ptr, stride, grad_ptr, reg, row, rows, padded,
    ROWS: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Write some entries of a bias gradient; return half of them before regularisation, 0 beyond `rows`. [ROWS]"""
    dtype = grad_ptr.dtype.element_ty
    total = tl.full([ROWS], 0, dtype)
    for i in range(slices):
        slice_row = tl.cast(i, tl.int64) * padded + row
        ptrs = column_ptr + slice_row * BK if slices_ptr is None else slices_ptr + slice_row
        total += tl.load(ptrs, mask=row < rows, other=0)
    if parts is not None:  # of sparse ratings, whose gradients have no column for the bias
        first, count = parts
        for i in tl.range(0, tl_max(count, 0), loop_unroll_factor=UNROLLED):
            total += tl.load(slices_ptr + padded + first + i, mask=i < count, other=0)
    bias = tl.load(bias_ptr + row.to(tl.int64) * stride, mask=row < rows, other=0)
    tl.store(grad_ptr + row, 2 * (total + reg * bias), mask=row < rows)
    return total
