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
    a_ptr, b_ptr,  # padded factors, rows up to whole tiles: (users, BK), (items, BK); where SPLIT, high then low halves
    bu_ptr, bi_ptr,  # user bias + global bias, item bias
    ratings_ptr, mask_ptr,  # (M, N), any strides; mask None: NaN = missing, integers all observed
    scale_ptr,  # (1,) where ratings are codes, value = code * scale and 255 = missing; else None
    da_ptr, db_ptr,  # slices of (users, BK), one for each split; slices of (items, BK), zeroed
    dbu_ptr, dbi_ptr,  # bias gradients where the factors have no columns for them (SUMS), else None
    sse_ptr,  # (programs, BM) float64
    M, N,
    stride_rm, stride_rn, stride_mm, stride_mn,
    user_blocks, tiles, tiles_per_split,
    walks_ptr, lengths_ptr,  # (user_blocks, tiles) tiles to walk, (user_blocks,) how many; None: all in order
    db_slice,  # 0: every program adds into one dB; else rows to a dB of the program's own
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    LANES: tl.constexpr,  # squared errors kept a user: as few as a thread can reach by adding elements of its own
    BITS: tl.constexpr,  # the mask is packed: bit c % 32 of word c // 32
    SUMS: tl.constexpr, GRADIENTS: tl.constexpr,
    ATOMIC: tl.constexpr,  # False, where dB is a program's own: plain loads and stores
    PERSISTENT: tl.constexpr,  # a program takes user blocks group, group + groups, ...; else one, in fewer registers
    SPLIT: tl.constexpr,  # mantissa bits of a float32 that go to its low half; 0: operands stay whole
    PRECISION: tl.constexpr,
):  # fmt: skip
    dtype = bu_ptr.dtype.element_ty
    group, split = tl.program_id(0), tl.program_id(1)
    m, n, k = tl.arange(0, BM), tl.arange(0, BN), tl.arange(0, BK)
    a_tile, b_tile = m[:, None] * BK + k[None, :], n[:, None] * BK + k[None, :]  # [BM, BK], [BN, BK]
    a_low_ptr = a_ptr + tl.cast(user_blocks, tl.int64) * (BM * BK)
    b_low_ptr = b_ptr + tl.cast(tiles, tl.int64) * (BN * BK)
    sse = tl.full([BM, LANES], 0, dtype)
    scale = None if scale_ptr is None else tl.load(scale_ptr)
    last, stride = (user_blocks, tl.num_programs(0)) if PERSISTENT else (group + 1, 1)
    for user_block in range(group, last, stride):
        i = tl.cast(user_block, tl.int64) * BM
        A = tl.load(a_ptr + i * BK + a_tile)  # [BM, BK]
        A_low = tl.load(a_low_ptr + i * BK + a_tile) if SPLIT else A
        bu = tl.load(bu_ptr + i + m)  # [BM]
        users = m < M - user_block * BM  # [BM]
        # Rows past M stand for row M - 1: a load is cheaper where only columns have a bound.
        rows = tl.minimum(m, M - 1 - user_block * BM).to(tl.int64)[:, None] * stride_rm  # [BM, 1]
        ratings_tile = i * stride_rm + rows + n.to(tl.int64)[None, :] * stride_rn  # [BM, BN]
        dA = tl.full([BM, BK], 0, dtype)
        dbu = tl.full([BM], 0, dtype)

        first, walk, lead = part_of_walk(user_block, group, split, tiles, tiles_per_split, lengths_ptr)
        for step in range(walk):
            tile = tile_at(step, first, walk, lead, user_block, tiles, walks_ptr)
            j = tile.to(tl.int64) * BN
            B = tl.load(b_ptr + j * BK + b_tile)  # [BN, BK]
            B_low = tl.load(b_low_ptr + j * BK + b_tile) if SPLIT else B
            bi = tl.load(bi_ptr + j + n)  # [BN]
            items = (n < N - tile * BN)[None, :]  # [1, BN]
            R, observed = observe(
                ratings_ptr + j * stride_rn + ratings_tile, mask_ptr, scale, i, j, stride_mm, stride_mn,
                users, items, m, n, dtype, BN, BITS,
            )  # fmt: skip

            # The ratings stay out of the product's accumulator: loads that feed one are not pipelined.
            bias = bu[:, None] + bi[None, :]
            E = product(A, A_low, tl.trans(B), tl.trans(B_low), bias, SPLIT, PRECISION) - R
            E = tl.where(observed, E, 0)  # [BM, BN]; a product with the mask would keep NaN
            sse += tl_sum((E * E).reshape(BM, BN // LANES, LANES), 1)
            if GRADIENTS:
                if SUMS:
                    dbu += tl_sum(E, 1)
                    d_bi = tl_sum(E, 0)
                E, E_low = halves(E, A.dtype, SPLIT)
                dA = product(E, E_low, B, B_low, dA, SPLIT, PRECISION)  # [BM, BK]
                dB = tl.full([BN, BK], 0, dtype)
                dB = product(tl.trans(E), tl.trans(E_low), A, A_low, dB, SPLIT, PRECISION)  # [BN, BK]
                row = group.to(tl.int64) * db_slice + j
                add(db_ptr + row * BK + b_tile, dB, ATOMIC)
                if SUMS:
                    add(dbi_ptr + row + n, d_bi, ATOMIC)

        if GRADIENTS:
            row = split.to(tl.int64) * user_blocks * BM + i
            tl.store(da_ptr + row * BK + a_tile, dA)
            if SUMS:
                tl.store(dbu_ptr + row + m, dbu)

    program = group.to(tl.int64) * tl.num_programs(1) + split
    tl.store(sse_ptr + program * BM + m, tl_sum(sse, 1).to(tl.float64))


@triton.jit
def part_of_walk(user_block, group, split, tiles, tiles_per_split, lengths_ptr):
    """Where a split begins on a user block's walk, its steps, and by how many a group starts ahead of the first.

    Groups start apart, so that few programs add to one dB tile at a time.
    """
    length = tiles
    if lengths_ptr is not None:
        length = tl.load(lengths_ptr + user_block)
        tiles_per_split = (length + tl.num_programs(1) - 1) // tl.num_programs(1)
    first = split * tiles_per_split
    walk = tl.maximum(tl.minimum(tiles_per_split, length - first), 0)
    return first, walk, group % tl.maximum(walk, 1)


@triton.jit
def tile_at(step, first, walk, lead, user_block, tiles, walks_ptr):
    tile = first + tl.where(step < walk - lead, step + lead, step + lead - walk)
    if walks_ptr is not None:
        tile = tl.load(walks_ptr + tl.cast(user_block, tl.int64) * tiles + tile)
    return tile


@triton.jit
def observe(
    rating_ptrs, mask_ptr, scale, i, j, stride_mm, stride_mn, users, items, m, n,
    dtype: tl.constexpr, BN: tl.constexpr, BITS: tl.constexpr,
):  # fmt: skip
    """The tile of ratings from row i and column j on, decoded, and where it is observed. [BM, BN] each"""
    inside = users[:, None] & items
    bounds = items if mask_ptr is None or BITS else inside  # those of the mask's own load, where it has one
    rating = tl.load(rating_ptrs, mask=bounds, other=0)
    R = rating.to(dtype)
    if scale is not None:
        R = R * scale
        observed = inside & (rating != MISSING_CODE)
    elif mask_ptr is None:
        observed = inside & (R == R)
    else:
        observed = observed_in(mask_ptr + i * stride_mm, j, stride_mm, stride_mn, inside, users, m, n, BN, BITS)
    return R, observed


@triton.jit
def add(pointers, values, ATOMIC: tl.constexpr):
    if ATOMIC:
        tl.atomic_add(pointers, values, sem="relaxed")
    else:
        tl.debug_barrier()  # threads may hold copies: all have stored before one loads, and loaded before one stores
        total = tl.load(pointers) + values
        tl.debug_barrier()
        tl.store(pointers, total)


@triton.jit
def observed_in(rows_ptr, j, stride_mm, stride_mn, inside, users, m, n, BN: tl.constexpr, BITS: tl.constexpr):
    """Where the mask's tile, from the row at `rows_ptr` and column j on, is not zero. [BM, BN]"""
    if BITS:
        words_ptr = rows_ptr + m.to(tl.int64) * stride_mm + j // 32
        word = tl.load(words_ptr, mask=users, other=0)[:, None]  # [BM, 1]
        if BN > 32:
            word = tl.where((n < 32)[None, :], word, tl.load(words_ptr + 1, mask=users, other=0)[:, None])  # [BM, BN]
        observed = inside & ((word & (1 << (j.to(tl.int32) % 32 + n % 32))[None, :]) != 0)
    else:
        weights_ptr = rows_ptr + j * stride_mn + m.to(tl.int64)[:, None] * stride_mm
        weight = tl.load(weights_ptr + n.to(tl.int64)[None, :] * stride_mn, mask=inside, other=0)
        if weight.dtype == tl.bfloat16:
            weight = weight.to(tl.float32)  # the interpreter compares bit patterns, where -0 is not 0
        observed = weight != 0
    return observed


@triton.jit
def halves(x, dtype: tl.constexpr, SPLIT: tl.constexpr):
    """x = high + low: x rounded to its upper mantissa bits, and the rest."""
    if SPLIT:
        bits = x.to(tl.int32, bitcast=True) + (1 << (SPLIT - 1))
        high = (bits & (-1 << SPLIT)).to(tl.float32, bitcast=True)
        low = (x - high).to(dtype)
        high = high.to(dtype)
    else:
        high = x
        low = x
    return high, low


@triton.jit
def product(x, x_low, y, y_low, total, SPLIT: tl.constexpr, PRECISION: tl.constexpr):
    """total + x y; of halves all but the product of the two low ones."""
    if SPLIT:
        total = tl.dot(x_low, y, total, input_precision=PRECISION, out_dtype=total.dtype)
        total = tl.dot(x, y_low, total, input_precision=PRECISION, out_dtype=total.dtype)
    return tl.dot(x, y, total, input_precision=PRECISION, out_dtype=total.dtype)
