"""The closed form in float64, against which every kernel is checked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reference.problem import Problem, Triplets, with_arguments

Array = npt.NDArray[np.float64]

BLOCK_ELEMENTS = 1 << 22  # elements of an array evaluated at a time: 32 MiB per temporary, small beside a large matrix


def _float64(values: Tensor) -> Array:
    return values.detach().cpu().to(torch.float64).numpy()


def _weights(ratings: Tensor, mask: Tensor | None) -> Array:
    if mask is not None and mask.is_floating_point():
        return _float64(mask)
    return _float64(~torch.isnan(ratings) if mask is None else mask.bool())


@with_arguments(Problem)
def oracle_loss_and_grads(problem: Problem) -> tuple[float, tuple[Array, ...]]:
    """Return loss and gradients by the formula, in float64 whatever the dtypes given.

        pred = P Q' + bu + bi' + mu;  E = W * (pred - R) where observed, else 0;  G = W * E
        loss = sum E^2 + reg * (|P|^2 + |Q|^2 + |bu|^2 + |bi|^2)
        dP = 2 (G Q + reg P);  dQ = 2 (G' P + reg Q);  dbu = 2 (G 1 + reg bu);  dbi = 2 (G' 1 + reg bi);  dmu = 2 sum G

    W is the mask if that is a float mask, and 1 wherever a bool or integer mask is not 0. For sparse ratings it is 1 at
    every stored entry, and work and memory grow with their number.

    Args:
        The fields of `Problem`.

    Returns:
        The loss and the gradients in parameter order, float64 arrays of their parameters' shapes.

    Raises:
        ValueError: sparse ratings come with a mask.
    """
    *parameters, ratings, mask, reg = problem
    P, Q, bu, bi, mu = map(_float64, parameters)
    bu, bi, mu = bu.reshape(-1), bi.reshape(-1), mu.reshape(())

    loss = reg * sum((parameter**2).sum() for parameter in (P, Q, bu, bi))
    dP, dQ, dbu, dbi = 2 * reg * P, 2 * reg * Q, 2 * reg * bu, 2 * reg * bi
    dmu = np.zeros(())
    errors = _sparse_errors if ratings.layout == torch.sparse_csr else _dense_errors
    for users, squared_error, G in errors(P, Q, bu, bi, mu, ratings, mask):
        loss += squared_error
        dP[users] += 2 * (G @ Q)
        dQ += 2 * (G.T @ P[users])
        dbu[users] += 2 * G.sum(axis=1)
        dbi += 2 * G.sum(axis=0)
        dmu += 2 * G.sum()
    return float(loss), (
        dP,
        dQ,
        dbu.reshape(tuple(problem.user_bias.shape)),
        dbi.reshape(tuple(problem.item_bias.shape)),
        dmu.reshape(tuple(problem.global_bias.shape)),
    )


def _dense_errors(
    P: Array, Q: Array, bu: Array, bi: Array, mu: Array, ratings: Tensor, mask: Tensor | None
) -> Iterator[tuple[slice, float, Any]]:
    """Yield some users, the sum of their E^2, and their rows of G."""
    m, n = ratings.shape
    rows = max(1, BLOCK_ELEMENTS // max(1, n))
    for i in range(0, m, rows):
        users = slice(i, i + rows)
        R = _float64(ratings[users])
        W = _weights(ratings[users], None if mask is None else mask[users])
        observed = W != 0
        pred = P[users] @ Q.T + bu[users, None] + bi[None, :] + mu
        E = W * np.where(observed, pred - np.where(observed, R, 0), 0)
        yield users, (E**2).sum(), W * E


def _sparse_errors(
    P: Array, Q: Array, bu: Array, bi: Array, mu: Array, ratings: Tensor, mask: Tensor | None
) -> Iterator[tuple[slice, float, Any]]:
    """Yield all users, the sum of E^2, and G = E as a sparse array."""
    from scipy.sparse import csr_array  # here, as dense ratings need no SciPy, which a borrowed GPU machine may lack

    triplets = Triplets.of(ratings, mask)
    users, items, R = triplets.users.cpu().numpy(), triplets.items.cpu().numpy(), _float64(triplets.ratings)
    starts = ratings.crow_indices().cpu().numpy()
    E = np.empty(len(R))
    count = max(1, BLOCK_ELEMENTS // max(1, P.shape[1]))
    for start in range(0, len(R), count):
        block = slice(start, start + count)
        u, i = users[block], items[block]
        E[block] = np.einsum("rk,rk->r", P[u], Q[i]) + bu[u] + bi[i] + mu - R[block]
    yield slice(None), (E**2).sum(), csr_array((E, items, starts), shape=tuple(ratings.shape))
