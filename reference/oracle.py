"""The closed form in float64: what every kernel is held against."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[np.float64]


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

        pred = P Q' + bu + bi' + mu;  E = pred - R where observed, else 0;  loss = sum E^2 + reg * (|P|^2 + |Q|^2 + ...)
        dP = 2 (E Q + reg P);  dQ = 2 (E' P + reg Q);  dbu = 2 (E 1 + reg bu);  dbi = 2 (E' 1 + reg bi);  dmu = 2 sum E

    Args:
        As for `autograd_loss_and_grads`.

    Returns:
        The loss and the gradients in parameter order, float64 arrays of their parameters' shapes.
    """
    P, Q, R = _float64(user_factors), _float64(item_factors), _float64(ratings)
    bu, bi = _float64(user_bias).reshape(-1), _float64(item_bias).reshape(-1)
    mu = _float64(global_bias).reshape(())
    observed = ~np.isnan(R) if mask is None else (mask != 0).cpu().numpy()

    pred = P @ Q.T + bu[:, None] + bi[None, :] + mu
    E = np.where(observed, pred - np.where(observed, R, 0), 0)
    loss = (E**2).sum() + reg * sum((parameter**2).sum() for parameter in (bu, bi, P, Q))

    dP = 2 * (E @ Q + reg * P)
    dQ = 2 * (E.T @ P + reg * Q)
    dbu = 2 * (E.sum(axis=1) + reg * bu)
    dbi = 2 * (E.sum(axis=0) + reg * bi)
    dmu = 2 * E.sum()
    shapes = (tuple(bias.shape) for bias in (user_bias, item_bias, global_bias))
    return float(loss), (dP, dQ, *(d.reshape(shape) for d, shape in zip((dbu, dbi, dmu), shapes, strict=True)))
