"""The first launch: factors padded and rounded or split, biases shifted, memory that is added to zeroed, tiles listed.

Also the penalty reg (|P|^2 + |Q|^2 + |bu|^2 + |bi|^2), one float64 term for each program with rows of a factor.
"""

import triton
import triton.language as tl
from triton.language import cumsum as tl_cumsum  # global names of this module, so that interpret.py can replace them
from triton.language import sum as tl_sum

from kernels.gpu.products import halves

TILES = tl.constexpr(256)  # tiles examined at a time


@triton.jit(do_not_specialize=[
    "M", "N", "rank", "users", "items", "stride_pm", "stride_pk", "stride_qn", "stride_qk", "stride_bu", "stride_bi",
    "stride_om", "stride_on", "da_slices", "db_slices", "programs", "tiles",
])  # fmt: skip
def prepare(
    p_ptr, q_ptr, bu_ptr, bi_ptr, mu_ptr,  # parameters: (M, rank), (N, rank), (M,), (N,), ()
    levels_ptr, occupied_ptr,  # of encoded ratings: (2,) scale and offset; blocks of users x blocks of items; or None
    a_ptr, b_ptr, bu_mu_ptr, bi_padded_ptr,  # as the pass reads them, rows up to whole tiles: users and items
    da_ptr, db_ptr, dbi_ptr,  # slices to zero: (da_slices, users, BK), (db_slices, items, BK or 1); or None
    tile_lists_ptr, tile_counts_ptr,  # (blocks of users, tiles) and (blocks of users,) int32, or None
    terms_ptr, ticket_ptr,  # the penalty's terms follow those of the pass's programs; zeroed
    reg: tl.float64,
    M, N, rank, users, items,
    stride_pm, stride_pk, stride_qn, stride_qk, stride_bu, stride_bi, stride_om, stride_on,
    da_slices, db_slices, programs, tiles,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, BK: tl.constexpr,
    ONES: tl.constexpr,  # column rank of B and rank + 1 of A hold ones
    SPLIT: tl.constexpr,  # mantissa bits of the low half; 0: operands stay whole
    ROUNDED: tl.constexpr,  # mantissa bits rounded away; 0: none
    BLOCK_USERS: tl.constexpr, BLOCK_ITEMS: tl.constexpr,  # blocks of `occupied` in a tile
):  # fmt: skip
    program = tl.program_id(0)
    user_programs, item_programs = (users + ROWS - 1) // ROWS, (items + ROWS - 1) // ROWS
    if program == 0:
        tl.store(ticket_ptr, 0)
    term_ptr = terms_ptr + programs + program
    if program < user_programs:
        row = program * ROWS + tl.arange(0, ROWS)
        norm = pack(p_ptr, stride_pm, stride_pk, a_ptr, row, M, users, rank, rank + 1,
                    ROWS, COLUMNS, BK, ONES, SPLIT, ROUNDED)  # fmt: skip
        norm += pack_bias(bu_ptr, stride_bu, mu_ptr, levels_ptr, bu_mu_ptr, row, M, users)
        tl.store(term_ptr, reg * norm)
        zero(da_ptr, None, da_slices, row, users, ROWS, COLUMNS, BK)
    elif program < user_programs + item_programs:
        row = (program - user_programs) * ROWS + tl.arange(0, ROWS)
        norm = pack(q_ptr, stride_qn, stride_qk, b_ptr, row, N, items, rank, rank,
                    ROWS, COLUMNS, BK, ONES, SPLIT, ROUNDED)  # fmt: skip
        norm += pack_bias(bi_ptr, stride_bi, None, None, bi_padded_ptr, row, N, items)
        tl.store(term_ptr, reg * norm)
        zero(db_ptr, dbi_ptr, db_slices, row, items, ROWS, COLUMNS, BK)
    else:
        if occupied_ptr is not None:
            block = program - user_programs - item_programs
            list_tiles(occupied_ptr, stride_om, stride_on, M, N, block, tiles, tile_lists_ptr, tile_counts_ptr,
                       BLOCK_USERS, BLOCK_ITEMS)  # fmt: skip


@triton.jit
def pack(
    factors_ptr, stride_row, stride_column, packed_ptr, row, rows, padded, rank, column_of_ones,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, BK: tl.constexpr, ONES: tl.constexpr, SPLIT: tl.constexpr,
    ROUNDED: tl.constexpr,
):  # fmt: skip
    """Pack some rows of a factor as the products read them; return the sum of their squares, float64."""
    inside = (row < rows)[:, None]  # [ROWS, 1]
    row_offs = row[:, None].to(tl.int64)
    squares = tl.full([ROWS, COLUMNS], 0, tl.float64)
    for first in range(0, BK, COLUMNS):
        column = first + tl.arange(0, COLUMNS)[None, :]  # [1, COLUMNS]
        ptrs = factors_ptr + row_offs * stride_row + column.to(tl.int64) * stride_column
        x = tl.load(ptrs, mask=inside & (column < rank), other=0)  # [ROWS, COLUMNS]
        squares += x.to(tl.float64) * x.to(tl.float64)
        if ONES:
            x = tl.where(inside & (column == column_of_ones), 1, x)
        high, low = halves(x, packed_ptr.dtype.element_ty, SPLIT + ROUNDED)
        packed_ptrs = packed_ptr + row_offs * BK + column
        tl.store(packed_ptrs, high, mask=(row < padded)[:, None])
        if SPLIT:
            tl.store(packed_ptrs + tl.cast(padded, tl.int64) * BK, low, mask=(row < padded)[:, None])
    return tl_sum(tl_sum(squares, 1), 0)


@triton.jit
def pack_bias(bias_ptr, stride, mu_ptr, levels_ptr, packed_ptr, row, rows, padded):
    """Pack some entries of a bias, + mu if given, less the offset of codes; return the sum of their squares, float64.

    What remains to subtract from a prediction is code * scale.
    """
    bias = tl.load(bias_ptr + row.to(tl.int64) * stride, mask=row < rows, other=0)  # [ROWS]
    shifted = bias
    if mu_ptr is not None:
        shifted += tl.load(mu_ptr)
    if levels_ptr is not None:
        shifted -= tl.load(levels_ptr + 1).to(bias.dtype)
    tl.store(packed_ptr + row, tl.where(row < rows, shifted, 0), mask=row < padded)
    return tl_sum(bias.to(tl.float64) * bias.to(tl.float64), 0)


@triton.jit
def zero(slices_ptr, bias_slices_ptr, slices, row, padded, ROWS: tl.constexpr, COLUMNS: tl.constexpr, BK: tl.constexpr):
    """Zero some rows of every slice of (padded, BK), and of (padded,)."""
    if slices_ptr is not None:
        for i in range(slices):
            slice_row = tl.cast(i, tl.int64) * padded + row  # [ROWS]
            if bias_slices_ptr is not None:
                zeros = tl.full([ROWS], 0, bias_slices_ptr.dtype.element_ty)
                tl.store(bias_slices_ptr + slice_row, zeros, mask=row < padded)
            zeros = tl.full([ROWS, COLUMNS], 0, slices_ptr.dtype.element_ty)
            for first in range(0, BK, COLUMNS):
                offs = slice_row[:, None] * BK + first + tl.arange(0, COLUMNS)[None, :]
                tl.store(slices_ptr + offs, zeros, mask=(row < padded)[:, None])


@triton.jit
def list_tiles(
    occupied_ptr, stride_row, stride_column, M, N, user_block, tiles, tile_lists_ptr, tile_counts_ptr,
    BLOCK_USERS: tl.constexpr, BLOCK_ITEMS: tl.constexpr,
):  # fmt: skip
    """List, in order, the tiles of a block of users that hold an observed entry, and count them."""
    rows, all_columns = (M + 15) // 16, (N + 15) // 16  # a block is 16 users x 16 items: problem.OCCUPIED_BLOCK
    count = tl.full([], 0, tl.int32)
    for first in range(0, tiles, TILES):
        tile = first + tl.arange(0, TILES)  # [TILES]
        occupied = tl.full([TILES], 0, tl.int32)
        for i in range(BLOCK_USERS):
            row = tl.cast(user_block, tl.int64) * BLOCK_USERS + i
            columns = tl.where(row < rows, all_columns, 0)
            for j in range(BLOCK_ITEMS):
                column = tile.to(tl.int64) * BLOCK_ITEMS + j  # [TILES]
                ptrs = occupied_ptr + row * stride_row + column * stride_column
                occupied = tl.maximum(occupied, tl.load(ptrs, mask=column < columns, other=0).to(tl.int32))
        place = count + tl_cumsum(occupied, 0) - 1
        list_ptr = tile_lists_ptr + tl.cast(user_block, tl.int64) * tiles
        tl.store(list_ptr + place, tile, mask=occupied != 0)
        count += tl_sum(occupied, 0)
    tl.store(tile_counts_ptr + user_block, count)
