"""Bound the curvature that each user and item has, which grows with the ratings, to divide gradients by it."""

from __future__ import annotations

import torch
from torch import Tensor

from mfbench.problems import matrices
from mfbench.train.task import Task

# User side, item side and global bias of a prediction: by (a + b + c)² <= 3 (a² + b² + c²), the Hessian of squared
# errors is at most three times its diagonal blocks, so that plain descent is stable at twice this rate.
RATE = 1 / 3


class Preconditioner:
    """Bounds the curvature of the parameters of each user, and item, by one number.

    A rating of item i adds 2 (1 + |q_i|²) to the trace of the Hessian of a user's factors and bias. The mean of |q_i|²
    over all ratings stands for that over the user's own. Nothing here waits for the device.
    """

    def __init__(self, task: Task) -> None:
        self._total = task.total
        users, items = matrices.counts(task.inputs.ratings, task.inputs.mask)
        of_users = users.to(task.inputs.user_bias)
        of_items = task.total(items).to(task.inputs.item_bias)
        observed = max(1, int(of_items.sum(dtype=torch.float64)))
        self._users = _Side(of_users, task.inputs.user_factors, observed, task.inputs.reg)
        self._items = _Side(of_items, task.inputs.item_factors, observed, task.inputs.reg)
        self._global = of_items.new_tensor([2 * observed])

    def scales(self) -> list[Tensor]:
        """Return what to divide each gradient by, in parameter order; of a user's, or item's, parameters (m, 1)."""
        of_items = self._items.curvature(self._total(self._users.squares()))
        of_users = self._users.curvature(self._items.squares())
        return [of_users, of_items, of_users, of_items, self._global]


class _Side:
    """Users or items."""

    def __init__(self, counts: Tensor, factors: Tensor, observed: int, reg: float) -> None:
        self._counts, self._factors = counts, factors
        self._squared = torch.empty_like(factors)  # kept: allocating it takes longer than computing it
        least = 2 * counts.clamp(min=1)[:, None]
        self._start, self._growth = least + 2 * reg, least / observed

    def squares(self) -> Tensor:
        """Return the sum of |factors|² over the ratings, 0-d."""
        return torch.mv(torch.square(self._factors, out=self._squared).T, self._counts).sum()

    def curvature(self, squares: Tensor) -> Tensor:
        """Return the bound for each of this side, from the squares of the other side's factors over all ratings."""
        return torch.addcmul(self._start, self._growth, squares)
