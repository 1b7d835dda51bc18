"""The closed form in float64: what every kernel is held against."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[np.float64]

BLOCK_ELEMENTS = 1 << 22  # ratings evaluated together: 32 MiB a temporary, so that large matrices fit beside it


def _float64(values: Tensor) -> Array:
    return values.detach().cpu().to(torch.float64).numpy()


def oracle_loss_and_grads(
    user_factors: Tensor,
    item_factors: Tensor,
    user_bias: Tensor,
    item_bias: Tensor,
    global_bias: Tensor,
    ratings: Tensor,
    mask: Tensor | None = None,
    reg: float = 0.1,
) -> tuple[float, tuple[Array, ...]]:
    """Loss and gradients by the formula, in float64 whatever the dtypes given.

        pred = P Q' + bu + bi' + mu;  E = pred - R where observed, else 0
        loss = sum E^2 + reg * (|P|^2 + |Q|^2 + |bu|^2 + |bi|^2)
        dP = 2 (E Q + reg P);  dQ = 2 (E' P + reg Q);  dbu = 2 (E 1 + reg bu);  dbi = 2 (E' 1 + reg bi);  dmu = 2 sum E

    Args:
        As for `autograd_loss_and_grads`.

    Returns:
        The loss and the gradients in parameter order, float64 arrays of their parameters' shapes.
    """
    P, Q, mu = _float64(user_factors), _float64(item_factors), _float64(global_bias).reshape(())
    bu, bi = _float64(user_bias).reshape(-1), _float64(item_bias).reshape(-1)
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
        dbu.reshape(tuple(user_bias.shape)),
        dbi.reshape(tuple(item_bias.shape)),
        dmu.reshape(tuple(global_bias.shape)),
    )
