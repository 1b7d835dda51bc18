"""Backend `torch`: the fused step as a loop over tiles in plain PyTorch. Any device, no compiler."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.decoding import decode, tile_of_weights
from kernels.precision import full_float32
from kernels.problem import Grads, Problem, check_memory
from kernels.tiled_sparse import finish, sparse_step

TILE_ELEMENTS = 1 << 18  # errors of one tile: 1 MiB in float32, which stays in cache
TILE_ITEMS = 1 << 13


def unavailable(problem: Problem | None = None, precision: str = "ieee", deterministic: bool = False) -> str:
    """Return why this backend cannot run: always empty, it runs everywhere."""
    return ""


def step(problem: Problem, precision: str, deterministic: bool, gradients: bool) -> tuple[Tensor, Grads | None]:
    """Return the loss (0-d float64) and, if requested, the gradients of one step. No temporary exceeds a tile.

    Errors may all have one sign, so their sums over tiles are accumulated in float64.
    """
    check_memory(problem)
    with torch.autocast(problem.device.type, enabled=False), full_float32("cpu"):  # the parameters' precision
        if problem.observations.sparse:
            return sparse_step(problem, deterministic, gradients)
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
            ratings, missing = decode(problem.observations, users, items, P.dtype)
            E -= ratings
            E.masked_fill_(missing, 0)
            weights = tile_of_weights(problem.observations, users, items, P.dtype)
            if weights is not None:
                E *= weights
            if gradients:
                G = E if weights is None else E * weights  # half the gradient of the predictions
                dP[users].addmm_(G, Q[items])
                dQ[items].addmm_(G.T, P[users])
                d_user_bias[users] += G.sum(1)
                d_item_bias[items] += G.sum(0)
            sse += E.square_().sum(dtype=torch.float64)
    return finish(problem, sse, (dP, dQ, d_user_bias, d_item_bias) if gradients else None)
