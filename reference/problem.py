"""The arguments of one training step, in one place."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import NamedTuple, ParamSpec, TypeVar

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
    ratings: Tensor  # (m, n), any real dtype
    # (m, n). Float: weights, 0 where unobserved. Bool or integer: non-zero where observed. None: NaN in `ratings` marks
    # the unobserved entries.
    mask: Tensor | None = None
    reg: float = 0.1  # weight of the squared norms; the global bias is not regularised


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
