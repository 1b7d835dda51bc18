"""Which tensors a step accepts: a kernel reads pointers, and many of PyTorch's tensors have no memory to point to."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor

from kernels.call import Call
from kernels.problem import PARAMETER_DTYPES, PLAIN, Grads, check_tensor

OPTIONAL = PLAIN | {type(None)}
SYMBOLIC = (FakeTensor, FunctionalTensor)  # an operator's fake implementation stands in for these
REQUIRED = (*Grads._fields, "ratings")
NAMES = dict(enumerate(REQUIRED)) | {  # by place in `Call.flat`
    6: "mask", 7: "ratings.levels", 9: "ratings.occupied", 10: "ratings.crow_indices()", 11: "ratings.col_indices()",
}  # fmt: skip


def has_plain_types(call: Call) -> bool:
    """Return whether every tensor is of a plain type."""
    P, Q, bu, bi, mu = call.parameters
    ratings, mask, levels, _, occupied, rows, columns, _ = call.observations
    return OPTIONAL.issuperset(map(type, (mask, levels, occupied, rows, columns))) and PLAIN.issuperset(
        (type(P), type(Q), type(bu), type(bi), type(mu), type(ratings))
    )


def admit(call: Call) -> Call:
    """Return the call with tensors that a kernel or an operator can read.

    Subclasses without a dispatch rule become plain tensors; half-precision parameters under autocast become float32, as
    by `torch.amp.custom_fwd(cast_inputs=torch.float32)`.

    Raises:
        TypeError: an argument is not a tensor, or is of a subclass that the step does not know.
    """
    flat = list(call.flat)
    for place, name in NAMES.items():
        if flat[place] is not None or name in REQUIRED:
            flat[place] = _admitted(name, flat[place])
    return cast_for_autocast(Call.of_flat(tuple(flat)))


def cast_for_autocast(call: Call) -> Call:
    """Return the call with half-precision parameters as float32, if autocast is on for their device."""
    return call._replace(parameters=tuple(map(_cast, call.parameters)))


def check_plain(call: Call) -> None:
    """Raise TypeError where a tensor is not plain, and so may have no memory."""
    if not has_plain_types(call):
        flat = call.flat
        raise next(_unknown(name, flat[place]) for place, name in NAMES.items() if type(flat[place]) not in OPTIONAL)


def _admitted(name: str, value: Tensor) -> Tensor:
    check_tensor(name, value)
    if type(value) in PLAIN or isinstance(value, (*SYMBOLIC, *_types_with_rules())):
        return value
    if type(value).__torch_dispatch__ is Tensor.__torch_dispatch__:
        return value.as_subclass(Tensor)
    raise _unknown(name, value)


def _unknown(name: str, value: Tensor) -> TypeError:
    return TypeError(f"{name}: expected a plain torch.Tensor, got {type(value).__name__}, a subclass of unknown layout")


def _types_with_rules() -> tuple[Any, ...]:
    """Return the types of torch.distributed whose dispatch rule hands plain tensors on.

    Those are the results of functional collectives, and the tensors of several simulated processes.
    """
    collectives = sys.modules.get("torch.distributed._functional_collectives")
    simulation = sys.modules.get("torch.distributed._local_tensor")
    return (
        *(() if collectives is None else (collectives.AsyncCollectiveTensor,)),
        *(() if simulation is None else (simulation.LocalTensor,)),
    )


def _cast(parameter: Any) -> Any:
    if (
        isinstance(parameter, Tensor)
        and parameter.is_floating_point()
        and parameter.dtype not in PARAMETER_DTYPES
        and torch.is_autocast_enabled(parameter.device.type)
    ):
        return parameter.float()
    return parameter
