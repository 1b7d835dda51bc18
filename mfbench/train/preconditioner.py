"""Divide gradients by the curvature that each user and item has, which grows with the ratings."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mfbench.problems import matrices
from mfbench.train.task import Task

# User side, item side and global bias of a prediction: by (a + b + c)² <= 3 (a² + b² + c²), the Hessian of squared
# errors is at most three times its diagonal blocks, so that plain descent is stable at twice this rate.
RATE = 1 / 3


class Preconditioner:
    """Scales the gradients of a user, or item, by one bound on the curvature of its parameters.

    A rating of item i adds 2 (1 + |q_i|²) to the trace of the Hessian of a user's factors and bias. The mean of |q_i|²
    over all ratings stands for that over the user's own. Nothing here waits for the device.
    """

    def __init__(self, task: Task) -> None:
        self._inputs, self._total = task.inputs, task.total
        users, items = matrices.counts(task.inputs.ratings, task.inputs.mask)
        self._users = users.to(task.inputs.user_bias)
        self._items = self._total(items).to(task.inputs.item_bias)
        self._observed = max(1, int(self._items.sum(dtype=torch.float64)))

    def __call__(self, grads: Sequence[Tensor]) -> list[Tensor]:
        """Return the scaled gradients, in parameter order."""
        of_items = self._curvature(self._items, self._total(_squares(self._users, self._inputs.user_factors)))
        of_users = self._curvature(self._users, _squares(self._items, self._inputs.item_factors))
        scales: list[Tensor | int] = [of_users, of_items, of_users, of_items, 2 * self._observed]
        return [grad / scale for grad, scale in zip(grads, scales, strict=True)]

    def _curvature(self, counts: Tensor, squares: Tensor) -> Tensor:
        """Return the bound for each of one side, from the squares of the other side's factors over all ratings."""
        curvature: Tensor = 2 * (counts.clamp(min=1) * (1 + squares / self._observed) + self._inputs.reg)
        return curvature[:, None]


def _squares(counts: Tensor, factors: Tensor) -> Tensor:
    """Return the sum of |factors|² over the ratings, 0-d."""
    squares: Tensor = counts @ torch.linalg.vector_norm(factors, dim=1).square()
    return squares
