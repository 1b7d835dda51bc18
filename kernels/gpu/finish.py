"""The last launch: slices of partial gradients summed in a fixed order, regularised and doubled; the loss.

    dP = 2 (sum of dA slices + reg P), likewise dQ, dbu and dbi;  dmu = 2 sum of dbu before regularisation

The last program to get there adds up the loss and dmu.
"""

import triton
import triton.language as tl
from triton.language import sum as tl_sum  # a global name of this module, so that interpret.py can replace it

from kernels.gpu.reduce import is_last_program, store_sum


@triton.jit(do_not_specialize=[
    "M", "N", "rank", "users", "items", "stride_pm", "stride_pk", "stride_qn", "stride_qk", "stride_bu", "stride_bi",
    "splits", "db_slices", "terms",
])  # fmt: skip
def finish(
    p_ptr, q_ptr, bu_ptr, bi_ptr,  # parameters: (M, rank), (N, rank), (M,), (N,)
    da_ptr, db_ptr,  # (splits, users, BK), (db_slices, items, BK)
    dbu_ptr, dbi_ptr,  # (splits, users), (db_slices, items); None: column rank of dA and rank + 1 of dB
    terms_ptr,  # (terms,) of the loss
    bias_sums_ptr, ticket_ptr,  # (programs with users,); 0
    loss_ptr, d_p_ptr, d_q_ptr, d_bu_ptr, d_bi_ptr, d_mu_ptr,  # results, contiguous, shaped as the parameters
    reg: tl.float64,
    M, N, rank, users, items,
    stride_pm, stride_pk, stride_qn, stride_qk, stride_bu, stride_bi,
    splits, db_slices, terms,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    program, user_programs = tl.program_id(0), (M + ROWS - 1) // ROWS
    reg = tl.full([], reg, p_ptr.dtype.element_ty)
    if program < user_programs:
        row = program * ROWS + tl.arange(0, ROWS)
        finish_factors(da_ptr, splits, p_ptr, stride_pm, stride_pk, d_p_ptr, reg, row, M, users, rank,
                       ROWS, COLUMNS, BK)  # fmt: skip
        d_bu = finish_bias(da_ptr + rank, dbu_ptr, splits, bu_ptr, stride_bu, d_bu_ptr, reg, row, M, users, ROWS, BK)
        tl.store(bias_sums_ptr + program, tl_sum(d_bu.to(tl.float64), 0))
    else:
        row = (program - user_programs) * ROWS + tl.arange(0, ROWS)
        finish_factors(db_ptr, db_slices, q_ptr, stride_qn, stride_qk, d_q_ptr, reg, row, N, items, rank,
                       ROWS, COLUMNS, BK)  # fmt: skip
        finish_bias(db_ptr + rank + 1, dbi_ptr, db_slices, bi_ptr, stride_bi, d_bi_ptr, reg, row, N, items, ROWS, BK)
    last = is_last_program(ticket_ptr)
    store_sum(loss_ptr, terms_ptr, terms, 1, last)
    store_sum(d_mu_ptr, bias_sums_ptr, user_programs, 2, last)


@triton.jit
def finish_factors(
    slices_ptr, slices, factors_ptr, stride_row, stride_column, grad_ptr, reg, row, rows, padded, rank,
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
        factors_ptrs = factors_ptr + row_offs * stride_row + column.to(tl.int64) * stride_column
        total += reg * tl.load(factors_ptrs, mask=inside, other=0)
        tl.store(grad_ptr + row_offs * rank + column, 2 * total, mask=inside)


@triton.jit
def finish_bias(
    column_ptr, slices_ptr, slices, bias_ptr, stride, grad_ptr, reg, row, rows, padded,
    ROWS: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Write some entries of a bias gradient; return half of them before regularisation, 0 beyond `rows`. [ROWS]"""
    dtype = grad_ptr.dtype.element_ty
    total = tl.full([ROWS], 0, dtype)
    for i in range(slices):
        slice_row = tl.cast(i, tl.int64) * padded + row
        ptrs = column_ptr + slice_row * BK if slices_ptr is None else slices_ptr + slice_row
        total += tl.load(ptrs, mask=row < rows, other=0)
    bias = tl.load(bias_ptr + row.to(tl.int64) * stride, mask=row < rows, other=0)
    tl.store(grad_ptr + row, 2 * (total + reg * bias), mask=row < rows)
    return total
