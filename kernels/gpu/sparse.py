"""The pass over sparse ratings: a row of compressed ratings at a time, the other side's factors gathered.

Of the entries of user u, with A and B the packed factors:

    e = a_u b_i + bu_u + bi_i + mu - r;   dA_u = sum of e b_i, dbu_u = sum of e;   dB_i += e a_u, dbi_i += e

The sums over a user stay in registers; what belongs to the items is added in memory, atomically. Without atomics, half
of the programs walk the same ratings in the order of items, as users of the transposed problem.

Programs own equal shares of the work, where a row counts as much as ROW_COST entries: row u takes the places from
pointers[u] + u * ROW_COST up to those of row u + 1. A program that begins inside a row puts its part of the row's
gradient behind all rows; finish.py adds it.
"""

import triton
import triton.language as tl
from triton.language import sum as tl_sum  # a global name of this module, so that interpret.py can replace it

from kernels.gpu.reduce import is_last_program, store_sum

ROW_COST = tl.constexpr(16)
PIVOTS = tl.constexpr(128)  # rows examined at a time to find where a program begins


@triton.jit(do_not_specialize=["M", "N", "terms", "user_programs", "user_share", "item_share"])
def sparse_step(
    a_ptr, b_ptr,  # packed factors (M, BK), (N, BK)
    bu_ptr, bi_ptr,  # user bias + global bias, item bias
    users_ptr, items_ptr, ratings_ptr,  # CSR: pointers (M + 1,), columns (entries,), ratings (entries,)
    item_pointers_ptr, item_users_ptr, item_ratings_ptr,  # the same in the order of items; None: atomic additions
    scale_ptr,  # (2,) float64 if ratings are codes: value = code * scale[0]; else None
    da_ptr, dbu_ptr,  # (M + user programs, BK), (M + user programs,)
    db_ptr, dbi_ptr,  # (N, BK), (N,), zeroed; or as da_ptr and dbu_ptr
    terms_ptr,  # (terms,) float64 of the loss: the squared errors of each user program, then what prepare.py adds
    loss_ptr, ticket_ptr,  # float64; int32, 0; without gradients the last program stores the loss
    M, N, terms, user_programs, user_share, item_share,  # a share is a program's amount of work
    ENTRIES: tl.constexpr,  # entries of a row at a time
    COLUMNS: tl.constexpr, BK: tl.constexpr,  # the factors are held in BK // COLUMNS groups of columns
    GRADIENTS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    scale = None if scale_ptr is None else tl.load(scale_ptr).to(bu_ptr.dtype.element_ty)
    if program < user_programs:
        squares = walk(
            program, users_ptr, items_ptr, ratings_ptr, scale, a_ptr, bu_ptr, b_ptr, bi_ptr,
            da_ptr, dbu_ptr, db_ptr, dbi_ptr, M, user_share,
            ENTRIES, COLUMNS, BK, GRADIENTS, item_pointers_ptr is None,
        )  # fmt: skip
        tl.store(terms_ptr + program, squares)
    else:
        if item_pointers_ptr is not None:
            walk(
                program - user_programs, item_pointers_ptr, item_users_ptr, item_ratings_ptr, scale,
                b_ptr, bi_ptr, a_ptr, bu_ptr, db_ptr, dbi_ptr, None, None, N, item_share,
                ENTRIES, COLUMNS, BK, GRADIENTS, False,
            )  # fmt: skip
    if not GRADIENTS:
        store_sum(loss_ptr, terms_ptr, terms, 1, is_last_program(ticket_ptr))


@triton.jit
def walk(
    program, pointers_ptr, indices_ptr, ratings_ptr, scale, own_ptr, own_bias_ptr, other_ptr, other_bias_ptr,
    d_own_ptr, d_own_bias_ptr, d_other_ptr, d_other_bias_ptr, rows, share,
    ENTRIES: tl.constexpr, COLUMNS: tl.constexpr, BK: tl.constexpr, GRADIENTS: tl.constexpr, SCATTER: tl.constexpr,
):  # fmt: skip
    """Walk a program's share of the rows, store or add gradients, and return the sum of squared errors, float64."""
    dtype = own_bias_ptr.dtype.element_ty
    offs_e, offs_k = tl.arange(0, ENTRIES), tl.arange(0, COLUMNS)
    start = tl.cast(program, tl.int64) * share
    end_of_rows = tl.load(pointers_ptr + rows).to(tl.int64) + tl.cast(rows, tl.int64) * ROW_COST
    stop = tl.minimum(start + share, end_of_rows)
    row = first_row(pointers_ptr, rows, start)
    begin = tl.load(pointers_ptr + row).to(tl.int64)
    shift = row * ROW_COST  # from a row's first entry to its place
    sse = tl.full([ENTRIES], 0, dtype)
    while begin + shift < stop:
        end = tl.load(pointers_ptr + row + 1).to(tl.int64)
        # A row that began in an earlier program has a place behind all rows
        to = tl.where(begin + shift < start, rows + program, row)
        shift += ROW_COST
        first = tl.maximum(begin, start - shift)
        count = (tl.minimum(end, stop - shift) - first).to(tl.int32)
        index_ptrs, rating_ptrs = indices_ptr + first + offs_e, ratings_ptr + first + offs_e  # [ENTRIES]
        offs_p = row * BK + offs_k  # [COLUMNS]
        p, total = (), ()
        for c in tl.static_range(BK // COLUMNS):
            p += (tl.load(own_ptr + offs_p + c * COLUMNS)[None, :],)  # [1, COLUMNS]
            total += (tl.full([ENTRIES, COLUMNS], 0, dtype),)
        own_bias = tl.load(own_bias_ptr + row)
        d_bias = tl.full([ENTRIES], 0, dtype)
        for at in range(0, count, ENTRIES):
            inside = offs_e < count - at  # [ENTRIES]
            inside_q = inside[:, None]
            index = tl.load(index_ptrs + at, mask=inside, other=0).to(tl.int64)
            R = tl.load(rating_ptrs + at, mask=inside, other=0).to(dtype)
            if scale is not None:
                R = R * scale
            offs_q = (index * BK)[:, None] + offs_k  # [ENTRIES, COLUMNS]
            q = ()
            for c in tl.static_range(BK // COLUMNS):
                q += (tl.load(other_ptr + offs_q + c * COLUMNS, mask=inside_q, other=0),)
            E = own_bias + tl.load(other_bias_ptr + index, mask=inside, other=0) - R
            for c in tl.static_range(BK // COLUMNS):
                E += tl_sum(p[c] * q[c], 1)
            E = tl.where(inside, E, 0)
            sse += E * E
            if GRADIENTS:
                d_bias += E
                e = E[:, None]
                sums = ()
                for c in tl.static_range(BK // COLUMNS):
                    sums += (total[c] + e * q[c],)
                    if SCATTER:
                        tl.atomic_add(d_other_ptr + offs_q + c * COLUMNS, e * p[c], mask=inside_q, sem="relaxed")
                total = sums
                if SCATTER:
                    tl.atomic_add(d_other_bias_ptr + index, E, mask=inside, sem="relaxed")
        if GRADIENTS:
            offs_d = to * BK + offs_k
            for c in tl.static_range(BK // COLUMNS):
                tl.store(d_own_ptr + offs_d + c * COLUMNS, tl_sum(total[c], 0))
            tl.store(d_own_bias_ptr + to, tl_sum(d_bias, 0))
        row += 1
        begin = end
    return tl_sum(sse.to(tl.float64), 0)


@triton.jit
def first_row(pointers_ptr, rows, start):
    """Return the last row whose place is `start` or before, int64."""
    offs = tl.arange(0, PIVOTS)
    row = tl.cast(0, tl.int64)
    step = tl.cast(rows, tl.int64)  # the row is one of so many from `row` on
    while step > 1:
        step = (step + PIVOTS - 1) // PIVOTS
        pivot = row + step * offs  # [PIVOTS]
        place = tl.load(pointers_ptr + pivot, mask=pivot < rows, other=0).to(tl.int64) + pivot * ROW_COST
        before = (pivot < rows) & (place <= start)
        row += step * (tl_sum(before.to(tl.int64), 0) - 1)
    return row
