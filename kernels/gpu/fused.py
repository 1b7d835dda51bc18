"""The fused pass: prediction, masked residual, squared error and all five gradients from one read of the ratings.

The factors come padded, A = [P, 0, 1, 0...] and B = [Q, 1, 0, 0...], in rows of BK columns, so that

    E  = A B' + bu + bi' + mu - R where observed, else 0    # the padding adds nothing to A B'
    dA = E B                                                # column rank sums the rows:       dbu
    dB = E' A                                               # column rank + 1 sums the columns: dbi

A program owns BM users at a time: it keeps A and dA and walks tiles of BN items.
"""

import triton
import triton.language as tl
from triton.language import sum as tl_sum

MISSING_CODE = tl.constexpr(255)


@triton.jit(do_not_specialize=["M", "user_blocks", "tiles", "tiles_per_split"])
def fused_step(
    a_ptr, b_ptr,  # padded factors, rows up to whole tiles: (users, BK), (items, BK)
    bu_ptr, bi_ptr,  # user bias + global bias, item bias
    ratings_ptr, mask_ptr,  # (M, N), any strides; mask None: NaN = missing, integers all observed
    scale_ptr,  # (1,) where ratings are codes, value = code * scale and 255 = missing; else None
    da_ptr, db_ptr,  # slices of (users, BK), one for each split; slices of (items, BK), zeroed
    dbu_ptr, dbi_ptr,  # bias gradients where the factors have no columns for them (SUMS), else None
    sse_ptr,  # (programs,) float64
    M, N,
    stride_rm, stride_rn, stride_mm, stride_mn,
    user_blocks, tiles, tiles_per_split,
    db_slice,  # 0: every program adds into one dB; else rows to a dB of the program's own
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    BITS: tl.constexpr,  # the mask is packed: bit c % 8 of byte c // 8
    SUMS: tl.constexpr, GRADIENTS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    dtype = a_ptr.dtype.element_ty
    group, split = tl.program_id(0), tl.program_id(1)
    first = split * tiles_per_split
    walk = tl.minimum(tiles_per_split, tiles - first)
    lead = group % walk  # groups start apart on their walk, so that few programs add to one dB tile at a time
    m, n, k = tl.arange(0, BM), tl.arange(0, BN), tl.arange(0, BK)
    ratings_tile = m.to(tl.int64)[:, None] * stride_rm + n.to(tl.int64)[None, :] * stride_rn  # [BM, BN]
    sse = tl.full([BM, BN], 0, dtype)
    if scale_ptr is not None:
        scale = tl.load(scale_ptr)

    for user_block in range(group, user_blocks, tl.num_programs(0)):
        i = tl.cast(user_block, tl.int64) * BM
        A = tl.load(a_ptr + i * BK + (m[:, None] * BK + k[None, :]))  # [BM, BK]
        bu = tl.load(bu_ptr + i + m)  # [BM]
        users = m < M - user_block * BM  # [BM]
        dA = tl.full([BM, BK], 0, dtype)
        dbu = tl.full([BM], 0, dtype)

        for step in range(walk):
            tile = first + tl.where(step < walk - lead, step + lead, step + lead - walk)
            j = tile.to(tl.int64) * BN
            B = tl.load(b_ptr + j * BK + (n[:, None] * BK + k[None, :]))  # [BN, BK]
            bi = tl.load(bi_ptr + j + n)  # [BN]
            inside = users[:, None] & (n < N - tile * BN)[None, :]  # [BM, BN]
            rating = tl.load(ratings_ptr + i * stride_rm + j * stride_rn + ratings_tile, mask=inside, other=0)
            R = rating.to(dtype)
            if scale_ptr is not None:
                R = R * scale
                observed = inside & (rating != MISSING_CODE)
            elif mask_ptr is None:
                observed = inside & (R == R)
            else:
                observed = observed_in(mask_ptr + i * stride_mm, j, stride_mm, stride_mn, inside, users, m, n, BN, BITS)

            # The ratings stay out of the product's accumulator: loads that feed one are not pipelined.
            E = tl.dot(A, tl.trans(B), bu[:, None] + bi[None, :], input_precision=PRECISION, out_dtype=dtype) - R
            E = tl.where(observed, E, 0)  # [BM, BN]; a product with the mask would keep NaN
            sse += E * E
            if GRADIENTS:
                dA = tl.dot(E, B, dA, input_precision=PRECISION, out_dtype=dtype)  # [BM, BK]
                dB = tl.dot(tl.trans(E), A, input_precision=PRECISION, out_dtype=dtype)  # [BN, BK]
                row = group.to(tl.int64) * db_slice + j
                tl.atomic_add(db_ptr + row * BK + (n[:, None] * BK + k[None, :]), dB, sem="relaxed")
                if SUMS:
                    dbu += tl_sum(E, 1)
                    tl.atomic_add(dbi_ptr + row + n, tl_sum(E, 0), sem="relaxed")

        if GRADIENTS:
            row = split.to(tl.int64) * user_blocks * BM + i
            tl.store(da_ptr + row * BK + (m[:, None] * BK + k[None, :]), dA)
            if SUMS:
                tl.store(dbu_ptr + row + m, dbu)

    program = group * tl.num_programs(1) + split
    tl.store(sse_ptr + program, tl_sum(tl_sum(sse, 1).to(tl.float64), 0))


@triton.jit
def observed_in(rows_ptr, j, stride_mm, stride_mn, inside, users, m, n, BN: tl.constexpr, BITS: tl.constexpr):
    """Where the mask's tile at row pointer and column j is not zero. [BM, BN]"""
    if BITS:
        words_ptr = rows_ptr + m.to(tl.int64) * stride_mm + j // 32
        word = tl.load(words_ptr, mask=users, other=0)[:, None]  # [BM, 1]
        if BN > 32:
            word = tl.where((n < 32)[None, :], word, tl.load(words_ptr + 1, mask=users, other=0)[:, None])  # [BM, BN]
        return inside & ((word & (1 << (j % 32 + n % 32).to(tl.int32))[None, :]) != 0)
    rows = m.to(tl.int64)[:, None] * stride_mm
    weight = tl.load(rows_ptr + j * stride_mn + rows + n.to(tl.int64)[None, :] * stride_mn, mask=inside, other=0)
    if weight.dtype == tl.bfloat16:
        weight = weight.to(tl.float32)  # the interpreter compares bit patterns, where -0 is not 0
    return weight != 0
