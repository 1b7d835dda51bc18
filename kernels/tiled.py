"""Backend `torch`: the fused step as a loop of tiles in plain PyTorch. Any device, no compiler."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.encoding import decoded
from kernels.problem import Grads, Problem, squared_norms

TILE_ELEMENTS = 1 << 18  # errors of one tile: 1 MiB in float32, so that they stay in cache
TILE_ITEMS = 1 << 13


def unavailable(problem: Problem | None = None, precision: str = "ieee", deterministic: bool = False) -> str:
    """Why this backend cannot run: never, so the empty string."""
    return ""


def step(problem: Problem, precision: str, deterministic: bool, gradients: bool) -> tuple[Tensor, Grads | None]:
    """Loss (0-d float64) and, where asked for, the gradients of one step.

    With the factors padded by a column of ones, A = [P, 1] and B = [Q, 1], the products 2 E B and 2 E' A
    hold the bias gradients in their last columns. No temporary is larger than a tile.
    """
    with torch.autocast(problem.user_factors.device.type, enabled=False):  # full precision, as asked for
        return _step(problem, gradients)


def _step(problem: Problem, gradients: bool) -> tuple[Tensor, Grads | None]:
    m, n, rank = problem.shape
    P, Q, bu, bi, mu = (parameter.detach() for parameter in problem.parameters)
    A, B = (torch.cat([factors, factors.new_ones(len(factors), 1)], dim=1) for factors in (P, Q))
    dA, dB = torch.zeros_like(A), torch.zeros_like(B)
    sse = torch.zeros((), dtype=torch.float64, device=P.device)
    bu_mu, bi = bu.reshape(m, 1) + mu, bi.reshape(1, n)

    tile_items = max(1, min(n, TILE_ITEMS))
    tile_users = max(1, TILE_ELEMENTS // tile_items)
    for i in range(0, m, tile_users):
        users = slice(i, i + tile_users)
        for j in range(0, n, tile_items):
            items = slice(j, j + tile_items)
            E = torch.addmm(bi[:, items], P[users], Q[items].T)  # [tile_users, tile_items]
            E += bu_mu[users]
            ratings, missing = decoded(problem, users, items)
            E -= ratings
            E.masked_fill_(missing, 0)
            if gradients:
                dA[users].addmm_(E, B[items])
                dB[items].addmm_(E.T, A[users])
            sse += E.square_().sum(dtype=torch.float64)
    loss = sse + problem.reg * squared_norms(problem)
    if not gradients:
        return loss, None

    dA[:, :rank] += problem.reg * P
    dB[:, :rank] += problem.reg * Q
    d_user_bias, d_item_bias = dA[:, rank], dB[:, rank]
    d_global_bias = d_user_bias.sum(dtype=torch.float64).to(P.dtype)
    return loss, Grads(
        2 * dA[:, :rank],
        2 * dB[:, :rank],
        2 * (d_user_bias.reshape(problem.user_bias.shape) + problem.reg * bu),
        2 * (d_item_bias.reshape(problem.item_bias.shape) + problem.reg * problem.item_bias.detach()),
        2 * d_global_bias.reshape(mu.shape),
    )
