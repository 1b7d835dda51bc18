"""The fused pass for wide factors: the rank in chunks of CHUNK columns, no factor or gradient kept in registers.

    E = sum of A_c B_c' over the chunks c, + bu + bi' + mu - R where observed, else 0
    dA_c = E B_c, dB_c = E' A_c for each chunk;  dbu = E 1, dbi = E' 1

As in `fused_step` weights multiply E twice, a program loops over tiles of BN items, and the ratings are read once; dA
is accumulated in memory, where it stays in cache.
"""

import triton
import triton.language as tl
from triton.language import sum as tl_sum  # a global name of this module, so that interpret.py can replace it

from kernels.gpu.fused import (
    add,
    load_ratings,
    low_half,
    scheduled_tile,
    staggered_split,
    store_squares,
    user_rows,
)
from kernels.gpu.products import add_prediction, add_squares, halves, product


@triton.jit(do_not_specialize=["M", "terms", "user_blocks", "tiles", "tiles_per_split"])
def chunked_step(
    a_ptr, b_ptr, bu_ptr, bi_ptr, ratings_ptr, mask_ptr, scale_ptr,  # as in fused_step
    da_ptr, db_ptr, dbu_ptr, dbi_ptr, terms_ptr, loss_ptr, ticket_ptr,  # as in fused_step; da zeroed too
    M, N, terms,
    stride_rm, stride_rn, stride_mm, stride_mn,
    user_blocks, tiles, tiles_per_split, tile_lists_ptr, tile_counts_ptr,
    db_slice,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, CHUNK: tl.constexpr,
    LANES: tl.constexpr, ADJACENT: tl.constexpr, BITS: tl.constexpr, WEIGHTED: tl.constexpr,
    GRADIENTS: tl.constexpr, ATOMIC: tl.constexpr, PERSISTENT: tl.constexpr,
    SPLIT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    dtype = bu_ptr.dtype.element_ty
    group, split = tl.program_id(0), tl.program_id(1)
    offs_m, offs_n, offs_k = tl.arange(0, BM), tl.arange(0, BN), tl.arange(0, CHUNK)
    offs_a = offs_m[:, None] * BK + offs_k[None, :]  # [BM, CHUNK]
    offs_b = offs_n[:, None] * BK + offs_k[None, :]  # [BN, CHUNK]
    a_low = tl.cast(user_blocks, tl.int64) * (BM * BK)  # from the high halves to the low ones
    b_low = tl.cast(tiles, tl.int64) * (BN * BK)
    sse = tl.full([BM, LANES], 0, dtype)
    scale = None if scale_ptr is None else tl.load(scale_ptr).to(dtype)
    last, stride = (user_blocks, tl.num_programs(0)) if PERSISTENT else (group + 1, 1)
    for user_block in range(group, last, stride):
        i = tl.cast(user_block, tl.int64) * BM
        bu, mask_m, offs_r = user_rows(user_block, i, offs_m, offs_n, bu_ptr, M, stride_rm, stride_rn, BM)
        da_row = split.to(tl.int64) * user_blocks * BM + i
        dbu = tl.full([BM], 0, dtype)

        first, count, start = staggered_split(user_block, group, split, tiles, tiles_per_split, tile_counts_ptr)
        for step in range(count):
            tile = scheduled_tile(step, first, count, start, user_block, tiles, tile_lists_ptr)
            j = tile.to(tl.int64) * BN
            bi = tl.load(bi_ptr + j + offs_n)  # [BN]
            mask_n = offs_n < N - tile * BN  # [BN]
            R, observed, W = load_ratings(
                ratings_ptr + j * stride_rn + offs_r, mask_ptr, scale, i, j, stride_mm, stride_mn,
                mask_m, mask_n, offs_m, offs_n, dtype, BN, BITS, WEIGHTED,
            )  # fmt: skip
            E = bu[:, None] + bi[None, :]  # [BM, BN]
            for c in range(0, BK, CHUNK):
                A_ptrs, B_ptrs = a_ptr + i * BK + c + offs_a, b_ptr + j * BK + c + offs_b
                A, B = tl.load(A_ptrs), tl.load(B_ptrs)  # [BM, CHUNK], [BN, CHUNK]
                A_low, B_low = low_half(A, A_ptrs + a_low, SPLIT), low_half(B, B_ptrs + b_low, SPLIT)
                E = add_prediction(E, A, A_low, B, B_low, SPLIT, PRECISION)
            E = tl.where(observed, E - R, 0)
            if WEIGHTED:
                E *= W
            sse = add_squares(sse, E, ADJACENT)
            if GRADIENTS:
                if WEIGHTED:
                    E *= W
                db_row = group.to(tl.int64) * db_slice + j
                dbu += tl_sum(E, 1)
                add(dbi_ptr + db_row + offs_n, tl_sum(E, 0), ATOMIC)
                E, E_low = halves(E, a_ptr.dtype.element_ty, SPLIT)
                for c in range(0, BK, CHUNK):
                    A_ptrs, B_ptrs = a_ptr + i * BK + c + offs_a, b_ptr + j * BK + c + offs_b
                    A, B = tl.load(A_ptrs), tl.load(B_ptrs)
                    A_low, B_low = low_half(A, A_ptrs + a_low, SPLIT), low_half(B, B_ptrs + b_low, SPLIT)
                    dA = product(E, E_low, B, B_low, tl.full([BM, CHUNK], 0, dtype), SPLIT, PRECISION)
                    add(da_ptr + da_row * BK + c + offs_a, dA, ATOMIC)
                    dB = tl.full([BN, CHUNK], 0, dtype)
                    dB = product(tl.trans(E), tl.trans(E_low), A, A_low, dB, SPLIT, PRECISION)
                    add(db_ptr + db_row * BK + c + offs_b, dB, ATOMIC)

        if GRADIENTS:
            tl.store(dbu_ptr + da_row + offs_m, dbu)

    store_squares(terms_ptr, loss_ptr, ticket_ptr, sse, group, split, terms, GRADIENTS)
