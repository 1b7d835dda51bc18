"""Divide gradients by the curvature that each user and item has, which grows with the ratings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mfbench.problems.inputs import Inputs

# User side, item side and global bias of a prediction: by (a + b + c)² <= 3 (a² + b² + c²), the Hessian of squared
# errors is at most three times its diagonal blocks, so that plain descent is stable at twice this rate.
RATE = 1 / 3


class Preconditioner:
    """Scales the gradients of a user, or item, by one bound on the curvature of its parameters.

    A rating of item i adds 2 (1 + |q_i|²) to the trace of the Hessian of a user's factors and bias. The mean of |q_i|²
    over all ratings stands for that over the user's own. Nothing here waits for the device.
    """

    def __init__(self, inputs: Inputs) -> None:
        self._inputs = inputs
        users, items = _ratings_of_each(inputs)
        self._users, self._items = users.to(inputs.user_bias), items.to(inputs.item_bias)
        self._observed = max(1, inputs.observed)

    def __call__(self, grads: Sequence[Tensor]) -> list[Tensor]:
        """Return the scaled gradients, in parameter order."""
        of_users = self._curvature(self._users, self._items, self._inputs.item_factors)
        of_items = self._curvature(self._items, self._users, self._inputs.user_factors)
        scales: list[Tensor | int] = [of_users, of_items, of_users, of_items, 2 * self._observed]
        return [grad / scale for grad, scale in zip(grads, scales, strict=True)]

    def _curvature(self, counts: Tensor, other_counts: Tensor, other_factors: Tensor) -> Tensor:
        squares = torch.linalg.vector_norm(other_factors, dim=1).square()
        mean = (other_counts @ squares) / self._observed
        curvature: Tensor = 2 * (counts.clamp(min=1) * (1 + mean) + self._inputs.reg)
        return curvature[:, None]


def _ratings_of_each(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Return the number of ratings of each user, (m,), and of each item, (n,)."""
    if inputs.sparse:
        starts, columns = inputs.ratings.crow_indices(), inputs.ratings.col_indices()
        return starts.diff(), torch.bincount(columns, minlength=inputs.ratings.shape[1])
    observed = ~inputs.ratings.isnan() if inputs.mask is None else inputs.mask
    return observed.count_nonzero(dim=1), observed.count_nonzero(dim=0)
