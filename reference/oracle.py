"""The closed form in float64, against which every kernel is checked."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reference.problem import Problem, with_arguments

Array = npt.NDArray[np.float64]

BLOCK_ELEMENTS = 1 << 22  # ratings evaluated at a time: 32 MiB per temporary, small beside a large matrix


def _float64(values: Tensor) -> Array:
    return values.detach().cpu().to(torch.float64).numpy()


@with_arguments(Problem)
def oracle_loss_and_grads(problem: Problem) -> tuple[float, tuple[Array, ...]]:
    """Return loss and gradients by the formula, in float64 whatever the dtypes given.

        pred = P Q' + bu + bi' + mu;  E = pred - R where observed, else 0
        loss = sum E^2 + reg * (|P|^2 + |Q|^2 + |bu|^2 + |bi|^2)
        dP = 2 (E Q + reg P);  dQ = 2 (E' P + reg Q);  dbu = 2 (E 1 + reg bu);  dbi = 2 (E' 1 + reg bi);  dmu = 2 sum E

    Args:
        The fields of `Problem`.

    Returns:
        The loss and the gradients in parameter order, float64 arrays of their parameters' shapes.
    """
    *parameters, ratings, mask, reg = problem
    P, Q, bu, bi, mu = map(_float64, parameters)
    bu, bi, mu = bu.reshape(-1), bi.reshape(-1), mu.reshape(())
    m, n = ratings.shape

    loss = reg * sum((parameter**2).sum() for parameter in (P, Q, bu, bi))
    dP, dQ, dbu, dbi = 2 * reg * P, 2 * reg * Q, 2 * reg * bu, 2 * reg * bi
    dmu = np.zeros(())
    rows = max(1, BLOCK_ELEMENTS // max(1, n))
    for i in range(0, m, rows):
        users = slice(i, i + rows)
        R = _float64(ratings[users])
        observed = ~np.isnan(R) if mask is None else mask[users].bool().cpu().numpy()
        pred = P[users] @ Q.T + bu[users, None] + bi[None, :] + mu
        E = np.where(observed, pred - np.where(observed, R, 0), 0)
        loss += (E**2).sum()
        dP[users] += 2 * E @ Q
        dQ += 2 * E.T @ P[users]
        dbu[users] += 2 * E.sum(axis=1)
        dbi += 2 * E.sum(axis=0)
        dmu += 2 * E.sum()
    return float(loss), (
        dP,
        dQ,
        dbu.reshape(tuple(problem.user_bias.shape)),
        dbi.reshape(tuple(problem.item_bias.shape)),
        dmu.reshape(tuple(problem.global_bias.shape)),
    )
