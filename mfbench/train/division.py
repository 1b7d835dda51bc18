"""Divide a task among processes by users, so that each has about the same number of ratings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from mfbench.errors import MfbenchError
from mfbench.problems import matrices
from mfbench.problems.division import bounds
from mfbench.train.task import Task

T = TypeVar("T")


class OwnTask(Task):
    """One process's users of a task, judged by what is held out of all users."""

    def total(self, own: Tensor) -> Tensor:
        """Return the sum of a tensor over the processes."""
        total = own.clone()
        dist.all_reduce(total)
        return total


def own_users(task: Task, process: int, processes: int) -> slice:
    """Return the users of one of several processes."""
    of_users, _ = matrices.counts(task.inputs.ratings, task.inputs.mask)
    return slice(*bounds(of_users, processes)[process : process + 2])


def own_task(task: Task, users: slice) -> OwnTask:
    """Return a task of some users alone, in memory of their own, so that the rest can be freed."""
    inputs = task.inputs.of_users(users)
    inputs = inputs._replace(
        user_factors=inputs.user_factors.clone(),
        user_bias=inputs.user_bias.clone(),
        ratings=_copy(inputs.ratings),
        mask=None if inputs.mask is None else inputs.mask.clone(),
    )
    held_out = _copy(matrices.rows(task.held_out, users))
    return OwnTask(task.name, inputs, held_out, task.users, task.items)


def _copy(tensor: Tensor) -> Tensor:
    return matrices.with_parts(tensor, [part.clone() for part in matrices.parts(tensor)])


def whole_users(own: Tensor, process: int, processes: int) -> Tensor | None:
    """Return the rows of all processes one below the other, on the first process alone."""
    parts: list[Tensor] | None = [own] * processes if process == 0 else None
    dist.gather_object(own, parts)
    return None if parts is None else torch.cat(parts)


def on_first(function: Callable[[], T]) -> T:
    """Return on every process what a function returns on the first, which alone calls it.

    Raises:
        MfbenchError: the function raised it.
    """
    outcome: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            outcome[0] = function()
        except MfbenchError as error:
            outcome[1] = error
    dist.broadcast_object_list(outcome)
    value, refusal = outcome
    if refusal is not None:
        raise refusal
    return cast(T, value)
