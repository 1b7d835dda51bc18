"""The fused pass for wide factors: the rank in chunks of CHUNK columns, and no factor or gradient kept in registers.

    E = sum of A_c B_c' over the chunks c, + bu + bi' + mu - R where observed, else 0
    dA_c = E B_c, dB_c = E' A_c for each chunk;  dbu = E 1, dbi = E' 1

As in `fused_step` a program walks tiles of BN items, and the ratings are read once; dA is added to in memory, where
it stays in the cache.
"""

import triton
import triton.language as tl
from triton.language import sum as tl_sum

from kernels.gpu.fused import add, halves, observe, part_of_walk, product, tile_at


@triton.jit(do_not_specialize=["M", "user_blocks", "tiles", "tiles_per_split"])
def chunked_step(
    a_ptr, b_ptr, bu_ptr, bi_ptr, ratings_ptr, mask_ptr, scale_ptr,  # as in fused_step
    da_ptr, db_ptr, dbu_ptr, dbi_ptr, sse_ptr,  # as there; da zeroed too
    M, N,
    stride_rm, stride_rn, stride_mm, stride_mn,
    user_blocks, tiles, tiles_per_split, walks_ptr, lengths_ptr,
    db_slice,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, CHUNK: tl.constexpr,
    LANES: tl.constexpr, BITS: tl.constexpr, GRADIENTS: tl.constexpr, ATOMIC: tl.constexpr, PERSISTENT: tl.constexpr,
    SPLIT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    dtype = bu_ptr.dtype.element_ty
    group, split = tl.program_id(0), tl.program_id(1)
    m, n, k = tl.arange(0, BM), tl.arange(0, BN), tl.arange(0, CHUNK)
    a_tile, b_tile = m[:, None] * BK + k[None, :], n[:, None] * BK + k[None, :]  # [BM, CHUNK], [BN, CHUNK]
    a_low = tl.cast(user_blocks, tl.int64) * (BM * BK)
    b_low = tl.cast(tiles, tl.int64) * (BN * BK)
    sse = tl.full([BM, LANES], 0, dtype)
    scale = None if scale_ptr is None else tl.load(scale_ptr)
    last, stride = (user_blocks, tl.num_programs(0)) if PERSISTENT else (group + 1, 1)
    for user_block in range(group, last, stride):
        i = tl.cast(user_block, tl.int64) * BM
        bu = tl.load(bu_ptr + i + m)  # [BM]
        users = m < M - user_block * BM  # [BM]
        rows = tl.minimum(m, M - 1 - user_block * BM).to(tl.int64)[:, None] * stride_rm  # [BM, 1]
        ratings_tile = i * stride_rm + rows + n.to(tl.int64)[None, :] * stride_rn  # [BM, BN]
        da_row = split.to(tl.int64) * user_blocks * BM + i
        dbu = tl.full([BM], 0, dtype)

        first, walk, lead = part_of_walk(user_block, group, split, tiles, tiles_per_split, lengths_ptr)
        for step in range(walk):
            tile = tile_at(step, first, walk, lead, user_block, tiles, walks_ptr)
            j = tile.to(tl.int64) * BN
            bi = tl.load(bi_ptr + j + n)  # [BN]
            items = (n < N - tile * BN)[None, :]  # [1, BN]
            R, observed = observe(
                ratings_ptr + j * stride_rn + ratings_tile, mask_ptr, scale, i, j, stride_mm, stride_mn,
                users, items, m, n, dtype, BN, BITS,
            )  # fmt: skip
            E = bu[:, None] + bi[None, :]  # [BM, BN]
            for c in range(0, BK, CHUNK):
                A_ptrs, B_ptrs = a_ptr + i * BK + c + a_tile, b_ptr + j * BK + c + b_tile
                A, B = tl.load(A_ptrs), tl.load(B_ptrs)  # [BM, CHUNK], [BN, CHUNK]
                A_low, B_low = (tl.load(A_ptrs + a_low), tl.load(B_ptrs + b_low)) if SPLIT else (A, B)
                E = product(A, A_low, tl.trans(B), tl.trans(B_low), E, SPLIT, PRECISION)
            E = tl.where(observed, E - R, 0)
            sse += tl_sum((E * E).reshape(BM, BN // LANES, LANES), 1)
            if GRADIENTS:
                db_row = group.to(tl.int64) * db_slice + j
                dbu += tl_sum(E, 1)
                add(dbi_ptr + db_row + n, tl_sum(E, 0), ATOMIC)
                E, E_low = halves(E, a_ptr.dtype.element_ty, SPLIT)
                for c in range(0, BK, CHUNK):
                    A_ptrs, B_ptrs = a_ptr + i * BK + c + a_tile, b_ptr + j * BK + c + b_tile
                    A, B = tl.load(A_ptrs), tl.load(B_ptrs)
                    A_low, B_low = (tl.load(A_ptrs + a_low), tl.load(B_ptrs + b_low)) if SPLIT else (A, B)
                    dA = product(E, E_low, B, B_low, tl.full([BM, CHUNK], 0, dtype), SPLIT, PRECISION)
                    add(da_ptr + da_row * BK + c + a_tile, dA, ATOMIC)
                    dB = tl.full([BN, CHUNK], 0, dtype)
                    dB = product(tl.trans(E), tl.trans(E_low), A, A_low, dB, SPLIT, PRECISION)
                    add(db_ptr + db_row * BK + c + b_tile, dB, ATOMIC)

        if GRADIENTS:
            tl.store(dbu_ptr + da_row + m, dbu)

    program = group.to(tl.int64) * tl.num_programs(1) + split
    tl.store(sse_ptr + program * BM + m, tl_sum(sse, 1).to(tl.float64))
