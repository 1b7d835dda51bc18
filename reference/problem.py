"""The arguments of one training step, in one place."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import NamedTuple, ParamSpec, TypeVar

import torch
from torch import Tensor

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Problem(NamedTuple):
    """The arguments of one training step, in order."""

    user_factors: Tensor  # (m, k), float32 or float64
    item_factors: Tensor  # (n, k)
    user_bias: Tensor  # (m,) or (m, 1)
    item_bias: Tensor  # (n,) or (n, 1)
    global_bias: Tensor  # () or (1,)
    ratings: Tensor  # (m, n), any real dtype; or torch.sparse_csr, whose stored entries are all observed
    # (m, n). Float: weights, 0 where unobserved. Bool or integer: non-zero where observed. None: NaN in dense `ratings`
    # marks the unobserved entries.
    mask: Tensor | None = None
    reg: float = 0.1  # weight of the squared norms; the global bias is not regularised


class Triplets(NamedTuple):
    """Sparse ratings entry by entry, in the order of the rows."""

    users: Tensor  # (observed,) row of each entry, of the dtype of its indices
    items: Tensor  # (observed,) column
    ratings: Tensor  # (observed,)

    @classmethod
    def of(cls, ratings: Tensor, mask: Tensor | None = None) -> Triplets:
        """Return the stored entries of a torch.sparse_csr matrix.

        Raises:
            ValueError: there is a mask too, or the ratings have another layout.
        """
        if ratings.layout != torch.sparse_csr:
            raise ValueError(f"ratings: expected torch.sparse_csr, got {ratings.layout}")
        if mask is not None:
            raise ValueError(
                "mask: expected None, since every stored entry of sparse ratings is observed; got a tensor"
            )
        ratings = ratings.detach()
        items = ratings.col_indices()
        users = torch.arange(len(ratings), dtype=items.dtype, device=items.device)
        return cls(torch.repeat_interleave(users, ratings.crow_indices().diff()), items, ratings.values())


def with_arguments(
    of: Callable[Arguments, Problem],
) -> Callable[[Callable[[Problem], Result]], Callable[Arguments, Result]]:
    """Return a decorator for functions of a `Problem`, which are then called with its fields as arguments."""

    def decorate(function: Callable[[Problem], Result]) -> Callable[Arguments, Result]:
        @functools.wraps(function)
        def called_with_fields(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
            return function(of(*args, **kwargs))

        result = inspect.signature(function).return_annotation
        vars(called_with_fields)["__signature__"] = inspect.signature(of).replace(return_annotation=result)
        return called_with_fields

    return decorate
