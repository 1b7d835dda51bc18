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
    """Loss (0-d float64) and, where asked for, the gradients of one step. No temporary is larger than a tile.

    The sums of errors, which may all have one sign, are added up over the tiles in float64.
    """
    with torch.autocast(problem.user_factors.device.type, enabled=False):  # full precision, as asked for
        return _step(problem, gradients)


def _step(problem: Problem, gradients: bool) -> tuple[Tensor, Grads | None]:
    m, n, _ = problem.shape
    P, Q, bu, bi, mu = (parameter.detach() for parameter in problem.parameters)
    dP, dQ = (torch.zeros_like(factors, memory_format=torch.contiguous_format) for factors in (P, Q))
    d_user_bias, d_item_bias, sse = (P.new_zeros(shape, dtype=torch.float64) for shape in (m, n, ()))
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
                dP[users].addmm_(E, Q[items])
                dQ[items].addmm_(E.T, P[users])
                d_user_bias[users] += E.sum(1)
                d_item_bias[items] += E.sum(0)
            sse += E.square_().sum(dtype=torch.float64)
    loss = sse + problem.reg * squared_norms(problem)
    if not gradients:
        return loss, None

    sums = (dP, dQ, d_user_bias, d_item_bias, d_user_bias.sum())
    regularised = zip(sums, problem.parameters, (problem.reg,) * 4 + (0.0,), strict=True)
    return loss, Grads(*(2 * (d.reshape(p.shape) + reg * p.detach()).to(p.dtype) for d, p, reg in regularised))
