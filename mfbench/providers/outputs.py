"""Convert a provider's outputs to tensors, and find faults in their form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mfbench.problems.inputs import Inputs

NAMES = ("loss", *Inputs._fields[:5])


class WrongOutputs(ValueError):
    """A provider returned something other than a loss and five gradients."""


def tensors(outputs: Any) -> list[Tensor]:
    """Return loss and gradients in parameter order.

    Raises:
        WrongOutputs: the outputs are not a pair of a loss and five gradients, each a real tensor, array or number.
    """
    if not _holds_values(outputs) or len(outputs) != 2:
        many = f" of {len(outputs)} values" if isinstance(outputs, tuple | list) else ""
        raise WrongOutputs(f"expected a pair, (loss, (five gradients)), got a {type(outputs).__name__}{many}")
    loss, grads = outputs
    if not _holds_values(grads):
        raise WrongOutputs(f"expected the gradients in a tuple or list, got a {type(grads).__name__}")
    try:
        values = [torch.as_tensor(value) for value in (loss, *grads)]
    except (TypeError, ValueError, RuntimeError) as error:
        raise WrongOutputs(
            f"expected a pair, (loss, (five gradients)), got something other than tensors: {error}"
        ) from None
    if len(values) != len(NAMES):
        raise WrongOutputs(f"expected a loss and five gradients, got a loss and {len(values) - 1}")
    for name, value in zip(NAMES, values, strict=True):
        if type(value) not in (Tensor, torch.nn.Parameter):  # a subclass may compute its values later
            raise WrongOutputs(f"{name}: expected a plain tensor, got {type(value).__name__}")
        if value.dtype.is_complex or value.layout != torch.strided or value.device.type == "meta":
            raise WrongOutputs(
                f"{name}: expected a dense real tensor, got {value.dtype}, {value.layout}, {value.device}"
            )
    return values


def _holds_values(outputs: Any) -> bool:
    """Return whether this is a tuple or list, perhaps a named one, that does not compute its values on access."""
    return isinstance(outputs, tuple | list) and type(outputs).__iter__ in (tuple.__iter__, list.__iter__)


def flaws(values: Sequence[Tensor], inputs: Inputs) -> list[str]:
    """Describe the gradients that lack their parameter's shape or dtype."""
    wrong = []
    for name, value, parameter in zip(NAMES[1:], values[1:], inputs[:5], strict=True):
        if value.shape != parameter.shape:
            wrong.append(f"{name} has shape {tuple(value.shape)}, expected {tuple(parameter.shape)}")
        elif value.dtype != parameter.dtype:
            wrong.append(f"{name} is {str(value.dtype)[6:]}, expected {str(parameter.dtype)[6:]}")
    return wrong
