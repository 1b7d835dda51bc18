"""The arguments of the public functions, listed once and bundled."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec, TypeVar

from torch import Tensor

from kernels.encoded import EncodedRatings, observations_of
from kernels.problem import Observations, Parameters

Arguments = ParamSpec("Arguments")
Bundle = TypeVar("Bundle")
Result = TypeVar("Result")


class Call(NamedTuple):
    """The arguments of a public function."""

    parameters: Parameters
    observations: Observations
    reg: float
    backend: str
    precision: str | None
    deterministic: bool

    @property
    def flat(self) -> tuple[Any, ...]:
        """The arguments without bundles, as operators take them."""
        parameters, observations, *options = self
        return *parameters, *observations, *options

    @classmethod
    def of_flat(cls, arguments: tuple[Any, ...]) -> Call:
        """Return the call that `flat` flattened."""
        end = 5 + len(Observations._fields)
        return cls(arguments[:5], Observations(*arguments[5:end]), *arguments[end:])


def bundle(
    user_factors: Tensor,
    item_factors: Tensor,
    user_bias: Tensor,
    item_bias: Tensor,
    global_bias: Tensor,
    ratings: Tensor | EncodedRatings,
    mask: Tensor | None = None,
    reg: float = 0.1,
    backend: str = "auto",
    precision: str | None = None,
    deterministic: bool = False,
) -> Call:
    """Return the arguments of a public function as a `Call`.

    Raises:
        TypeError: sparse ratings are in another layout than CSR.
        ValueError: encoded or sparse ratings come with a mask.
    """
    parameters = (user_factors, item_factors, user_bias, item_bias, global_bias)
    return Call(parameters, observations_of(ratings, mask), reg, backend, precision, deterministic)


def with_arguments(
    of: Callable[Arguments, Bundle],
) -> Callable[[Callable[[Bundle], Result]], Callable[Arguments, Result]]:
    """Return a decorator for functions of a bundle, which then take the arguments of the function that makes it."""

    def decorate(function: Callable[[Bundle], Result]) -> Callable[Arguments, Result]:
        @functools.wraps(function)
        def called_with_arguments(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
            try:
                call = of(*args, **kwargs)
            except TypeError as error:  # an argument is missing or unknown
                raise TypeError(str(error).replace(of.__name__, function.__name__)) from None
            return function(call)

        result = inspect.signature(function).return_annotation
        vars(called_with_arguments)["__signature__"] = inspect.signature(of).replace(return_annotation=result)
        return called_with_arguments

    return decorate
