"""A provider in Triton with one program per user. Without a GPU it runs in Triton's interpreter, only to be checked."""

import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported

import triton
import triton.language as tl

TILE = 64  # items


@triton.jit
def row(P, Q, bu, bi, mu, R, mask, squares, sums, dP, dQ, dbu, dbi, n, tiles, K: tl.constexpr, BK: tl.constexpr,
        TILE: tl.constexpr):  # fmt: skip
    user = tl.program_id(0).to(tl.int64)
    k = tl.arange(0, BK)
    p = tl.load(P + user * K + k, mask=k < K, other=0.0)
    bias = tl.load(bu + user) + tl.load(mu)
    dp = tl.zeros([BK], tl.float32)
    total = tl.zeros([TILE], tl.float32)
    square = tl.zeros([TILE], tl.float32)
    for tile in range(tiles):
        j = tile * TILE + tl.arange(0, TILE)
        inside = j < n
        places, valid = j[:, None] * K + k[None, :], inside[:, None] & (k < K)[None, :]
        q = tl.load(Q + places, mask=valid, other=0.0)
        rating = tl.load(R + user * n + j, mask=inside, other=0.0).to(tl.float32)
        observed = tl.load(mask + user * n + j, mask=inside, other=0) != 0
        e = tl.sum(q * p[None, :], axis=1) + bias + tl.load(bi + j, mask=inside, other=0.0) - rating
        e = tl.where(observed, e, 0.0)
        dp += tl.sum(e[:, None] * q, axis=0)
        tl.atomic_add(dQ + places, 2 * e[:, None] * p[None, :], mask=valid)
        tl.atomic_add(dbi + j, 2 * e, mask=inside)
        total += e
        square += e * e
    tl.atomic_add(dP + user * K + k, 2 * dp, mask=k < K)
    tl.atomic_add(dbu + user, 2 * tl.sum(total, axis=0))
    tl.store(sums + user, tl.sum(total, axis=0))
    tl.store(squares + user, tl.sum(square, axis=0))


def launch(tiles, P, Q, bu, bi, mu, ratings, mask, reg):
    if mask is None:
        mask, ratings = (~torch.isnan(ratings)).to(torch.uint8), torch.nan_to_num(ratings)
    ratings = torch.where(mask != 0, ratings, 0)  # unobserved entries may be NaN
    (m, rank), n = P.shape, len(Q)
    dP, dQ, dbu, dbi = (2 * reg * parameter for parameter in (P, Q, bu, bi))  # the kernel adds the rest
    sums, squares = torch.empty(m, device=P.device), torch.empty(m, device=P.device)
    row[(m,)](P, Q, bu, bi, mu, ratings, mask, squares, sums, dP, dQ, dbu, dbi, n, tiles, K=rank,
              BK=triton.next_power_of_2(rank), TILE=TILE)  # fmt: skip
    penalty = sum(parameter.double().square().sum() for parameter in (P, Q, bu, bi))
    return squares.double().sum() + reg * penalty, (dP, dQ, dbu, dbi, 2 * sums.double().sum().to(P.dtype).reshape(1))


def step(P, Q, bu, bi, mu, ratings, mask, reg):
    return launch(triton.cdiv(len(Q), TILE), P, Q, bu, bi, mu, ratings, mask, reg)


def whole_tiles_only(P, Q, bu, bi, mu, ratings, mask, reg):
    """Wrong on purpose: omits the items after the last whole tile."""
    return launch(len(Q) // TILE, P, Q, bu, bi, mu, ratings, mask, reg)
