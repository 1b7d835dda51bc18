"""The fused pass: prediction, masked residual, squared error and all five gradients from one read of the ratings.

The factors come padded, A = [P, 0, 1, 0...] and B = [Q, 1, 0, 0...], in rows of BK columns, so that

    E  = A B' + bu + bi' + mu - R where observed, else 0    # the padding adds nothing to A B'
    dA = E B                                                # column rank sums the rows:       dbu
    dB = E' A                                               # column rank + 1 sums the columns: dbi

A float mask holds weights W: E is multiplied by them before it is squared, and again before the products dA and dB.
A program owns BM users at a time: it keeps A and dA and loops over tiles of BN items.
"""

import triton
import triton.language as tl
from triton.language import sum as tl_sum  # a global name of this module, so that interpret.py can replace it

from kernels.gpu.products import add_gradient, add_prediction, add_squares, halves, product
from kernels.gpu.reduce import is_last_program, store_sum

MISSING_CODE = tl.constexpr(255)


@triton.jit(do_not_specialize=["M", "terms", "user_blocks", "tiles", "tiles_per_split"])
def fused_step(
    a_ptr, b_ptr,  # padded factors, rows up to whole tiles: (users, BK), (items, BK); if SPLIT, high then low halves
    bu_ptr, bi_ptr,  # user bias + global bias, item bias
    ratings_ptr, mask_ptr,  # (M, N), any strides; mask None: NaN = missing, integers all observed
    scale_ptr,  # (2,) float64 if ratings are codes: value = code * scale[0], 255 = missing; else None
    da_ptr, db_ptr,  # slices of (users, BK), one per split; slices of (items, BK), zeroed
    dbu_ptr, dbi_ptr,  # bias gradients if the factors have no columns for them (SUMS), else None
    terms_ptr,  # (terms,) float64 of the loss: the squared errors of each program, then what prepare.py adds
    loss_ptr, ticket_ptr,  # float64; int32, 0; without gradients the last program stores the loss
    M, N, terms,
    stride_rm, stride_rn, stride_mm, stride_mn,
    user_blocks, tiles, tiles_per_split,  # a program is one (group of user blocks, split of item tiles): config.Grid
    tile_lists_ptr, tile_counts_ptr,  # (user_blocks, tiles) occupied tiles first, (user_blocks,); None: all in order
    db_slice,  # 0: every program adds into one dB; else the rows of dB that each group has to itself
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    DEPTH: tl.constexpr,  # columns of the factors that one product takes: config.Config.depth, or all
    LANES: tl.constexpr,  # partial sums of squared errors per user: config.Config.lanes
    ADJACENT: tl.constexpr,  # a partial sum takes adjacent items, not items LANES apart: config.Config.adjacent
    BITS: tl.constexpr,  # the mask is packed: bit c % 32 of word c // 32
    WEIGHTED: tl.constexpr,  # the mask holds weights
    SUMS: tl.constexpr, GRADIENTS: tl.constexpr,
    ATOMIC: tl.constexpr,  # False if no other program adds into the same dB: plain loads and stores
    PERSISTENT: tl.constexpr,  # a program takes user blocks group, group + groups, ...; else one, in fewer registers
    SPLIT: tl.constexpr,  # mantissa bits of a float32 that go to its low half; 0: operands stay whole
    PRECISION: tl.constexpr,
):  # fmt: skip
    dtype = bu_ptr.dtype.element_ty
    group, split = tl.program_id(0), tl.program_id(1)
    offs_m, offs_n, offs_k = tl.arange(0, BM), tl.arange(0, BN), tl.arange(0, DEPTH)
    offs_a = offs_m[:, None] * BK + offs_k[None, :]  # [BM, DEPTH]
    offs_b = offs_n[:, None] * BK + offs_k[None, :]  # [BN, DEPTH]
    a_low_ptr = a_ptr + tl.cast(user_blocks, tl.int64) * (BM * BK)
    b_low_ptr = b_ptr + tl.cast(tiles, tl.int64) * (BN * BK)
    sse = tl.full([BM, LANES], 0, dtype)
    scale = None if scale_ptr is None else tl.load(scale_ptr).to(dtype)
    last, stride = (user_blocks, tl.num_programs(0)) if PERSISTENT else (group + 1, 1)
    for user_block in range(group, last, stride):
        i = tl.cast(user_block, tl.int64) * BM
        A, A_low = load_factors(a_ptr + i * BK + offs_a, a_low_ptr + i * BK + offs_a, BK, DEPTH, SPLIT)
        bu, mask_m, offs_r = user_rows(user_block, i, offs_m, offs_n, bu_ptr, M, stride_rm, stride_rn, BM)
        dA = zeros(BM, BK, DEPTH, dtype)
        dbu = tl.full([BM], 0, dtype)

        first, count, start = staggered_split(user_block, group, split, tiles, tiles_per_split, tile_counts_ptr)
        for step in range(count):
            tile = scheduled_tile(step, first, count, start, user_block, tiles, tile_lists_ptr)
            j = tile.to(tl.int64) * BN
            B, B_low = load_factors(b_ptr + j * BK + offs_b, b_low_ptr + j * BK + offs_b, BK, DEPTH, SPLIT)
            bi = tl.load(bi_ptr + j + offs_n)  # [BN]
            mask_n = offs_n < N - tile * BN  # [BN]
            R, observed, W = load_ratings(
                ratings_ptr + j * stride_rn + offs_r, mask_ptr, scale, i, j, stride_mm, stride_mn,
                mask_m, mask_n, offs_m, offs_n, dtype, BN, BITS, WEIGHTED,
            )  # fmt: skip

            # The ratings stay out of the product's accumulator: loads that feed one are not pipelined.
            E = bu[:, None] + bi[None, :]
            for c in tl.static_range(BK // DEPTH):
                E = add_prediction(E, A[c], A_low[c], B[c], B_low[c], SPLIT, PRECISION)
            E -= R
            E = tl.where(observed, E, 0)  # [BM, BN]; a product with the mask would keep NaN
            if WEIGHTED:
                E *= W
            sse = add_squares(sse, E, ADJACENT)  # [BM, LANES]
            if GRADIENTS:
                if WEIGHTED:
                    E *= W
                if SUMS:
                    dbu += tl_sum(E, 1)
                    d_bi = tl_sum(E, 0)
                row = group.to(tl.int64) * db_slice + j
                E, E_low = halves(E, a_ptr.dtype.element_ty, SPLIT)
                total = ()
                for c in tl.static_range(BK // DEPTH):
                    total += (add_gradient(dA[c], E, E_low, B[c], B_low[c], SPLIT, PRECISION),)
                    dB = tl.full([BN, DEPTH], 0, dtype)
                    dB = product(tl.trans(E), tl.trans(E_low), A[c], A_low[c], dB, SPLIT, PRECISION)
                    add(db_ptr + row * BK + c * DEPTH + offs_b, dB, ATOMIC)
                dA = total
                if SUMS:
                    add(dbi_ptr + row + offs_n, d_bi, ATOMIC)

        if GRADIENTS:
            row = split.to(tl.int64) * user_blocks * BM + i
            for c in tl.static_range(BK // DEPTH):
                tl.store(da_ptr + row * BK + c * DEPTH + offs_a, dA[c])
            if SUMS:
                tl.store(dbu_ptr + row + offs_m, dbu)

    store_squares(terms_ptr, loss_ptr, ticket_ptr, sse, group, split, terms, GRADIENTS)


@triton.jit
def store_squares(terms_ptr, loss_ptr, ticket_ptr, sse, group, split, terms, GRADIENTS: tl.constexpr):
    """Store a program's sum of squared errors; without gradients to finish, the last program stores the loss."""
    squares = tl_sum(tl_sum(sse.to(tl.float64), 1), 0)
    tl.store(terms_ptr + group * tl.num_programs(1) + split, squares)
    if not GRADIENTS:
        store_sum(loss_ptr, terms_ptr, terms, 1, is_last_program(ticket_ptr))


@triton.jit
def staggered_split(user_block, group, split, tiles, tiles_per_split, tile_counts_ptr):
    """Return which tiles of a user block a split takes: the first, how many, and the one of these to start with.

    Groups start at different tiles (a swizzled schedule), so that few programs add to one tile of dB at a time.
    """
    length = tiles
    if tile_counts_ptr is not None:
        length = tl.load(tile_counts_ptr + user_block)
        tiles_per_split = (length + tl.num_programs(1) - 1) // tl.num_programs(1)
    first = split * tiles_per_split
    count = tl.maximum(tl.minimum(tiles_per_split, length - first), 0)
    return first, count, group % tl.maximum(count, 1)


@triton.jit
def scheduled_tile(step, first, count, start, user_block, tiles, tile_lists_ptr):
    """Return the tile of a step: `start`, and on to the end of the split; then the split's tiles before `start`."""
    tile = first + tl.where(step < count - start, step + start, step + start - count)
    if tile_lists_ptr is not None:
        tile = tl.load(tile_lists_ptr + tl.cast(user_block, tl.int64) * tiles + tile)
    return tile


@triton.jit
def user_rows(user_block, i, offs_m, offs_n, bu_ptr, M, stride_rm, stride_rn, BM: tl.constexpr):
    """Return what a block of users has in common for all tiles: bias, mask_m, offsets of the ratings of item tile 0."""
    bu = tl.load(bu_ptr + i + offs_m)  # [BM]
    mask_m = offs_m < M - user_block * BM  # [BM]
    # Rows past M stand for row M - 1: a load is cheaper if only columns have a bound.
    rows = tl.minimum(offs_m, M - 1 - user_block * BM).to(tl.int64)[:, None] * stride_rm  # [BM, 1]
    offs_r = i * stride_rm + rows + offs_n.to(tl.int64)[None, :] * stride_rn  # [BM, BN]
    return bu, mask_m, offs_r


@triton.jit
def load_factors(ptrs, low_ptrs, BK: tl.constexpr, DEPTH: tl.constexpr, SPLIT: tl.constexpr):
    """Return rows of a factor in BK // DEPTH groups of columns, and their low halves."""
    high, low = (), ()
    for c in tl.static_range(BK // DEPTH):
        x = tl.load(ptrs + c * DEPTH)
        high += (x,)
        low += (low_half(x, low_ptrs + c * DEPTH, SPLIT),)
    return high, low


@triton.jit
def zeros(rows: tl.constexpr, BK: tl.constexpr, DEPTH: tl.constexpr, dtype: tl.constexpr):
    """Return zeros, in BK // DEPTH groups of columns."""
    groups = ()
    for _ in tl.static_range(BK // DEPTH):
        groups += (tl.full([rows, DEPTH], 0, dtype),)
    return groups


@triton.jit
def low_half(high, low_ptrs, SPLIT: tl.constexpr):
    """Return an operand's low half. Unless SPLIT there is none: the operand itself stands in for it, never used."""
    low = tl.load(low_ptrs) if SPLIT else high
    return low


@triton.jit
def load_ratings(
    rating_ptrs, mask_ptr, scale, i, j, stride_mm, stride_mn, mask_m, mask_n, offs_m, offs_n,
    dtype: tl.constexpr, BN: tl.constexpr, BITS: tl.constexpr, WEIGHTED: tl.constexpr,
):  # fmt: skip
    """Return the tile of ratings at row i and column j, decoded, where it is observed, and its weights. [BM, BN] each

    Unless WEIGHTED there are none: the ratings stand in for them, never used.
    """
    inside = mask_m[:, None] & mask_n[None, :]
    bounds = mask_n[None, :] if mask_ptr is None or BITS else inside  # a byte mask's own load has both bounds
    rating = tl.load(rating_ptrs, mask=bounds, other=0)
    R = rating.to(dtype)
    W = R
    if scale is not None:
        R = R * scale
        observed = inside & (rating != MISSING_CODE)
    elif mask_ptr is None:
        observed = inside & (R == R)
    elif BITS:
        observed = inside & load_bits(mask_ptr + i * stride_mm, j, stride_mm, mask_m, offs_m, offs_n, BN)
    else:
        mask_ptrs = mask_ptr + i * stride_mm + j * stride_mn + offs_m.to(tl.int64)[:, None] * stride_mm
        mask = tl.load(mask_ptrs + offs_n.to(tl.int64)[None, :] * stride_mn, mask=inside, other=0)
        if mask.dtype == tl.bfloat16:
            mask = mask.to(tl.float32)  # the interpreter compares bit patterns, in which -0 is not 0
        observed = mask != 0
        if WEIGHTED:
            W = mask.to(dtype)
    return R, observed, W


@triton.jit
def add(ptrs, values, ATOMIC: tl.constexpr):
    """Add a tile to memory, atomically if other programs add there too."""
    if ATOMIC:
        tl.atomic_add(ptrs, values, sem="relaxed")
    else:
        tl.debug_barrier()  # threads may hold copies: all have stored before one loads, and loaded before one stores
        total = tl.load(ptrs) + values
        tl.debug_barrier()
        tl.store(ptrs, total)


@triton.jit
def load_bits(rows_ptr, j, stride_mm, mask_m, offs_m, offs_n, BN: tl.constexpr):
    """Return where the tile of the packed mask, with first row at `rows_ptr` and first column j, is set. [BM, BN]"""
    word_ptrs = rows_ptr + offs_m.to(tl.int64) * stride_mm + j // 32
    word = tl.load(word_ptrs, mask=mask_m, other=0)[:, None]  # [BM, 1]
    if BN > 32:
        second = tl.load(word_ptrs + 1, mask=mask_m, other=0)[:, None]
        word = tl.where((offs_n < 32)[None, :], word, second)  # [BM, BN]
    return (word & (1 << (j.to(tl.int32) % 32 + offs_n % 32))[None, :]) != 0
