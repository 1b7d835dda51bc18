"""Unpack and check the form of what a provider returned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mfbench.problems.inputs import Fingerprints, Inputs, fingerprints
from mfbench.results.codes import Code, Finding

OUTPUTS = ("loss", *Inputs._fields[:5])  # a gradient is called by its parameter's name
LETTERS = dict(zip(OUTPUTS, ("loss", "dP", "dQ", "dbu", "dbi", "dmu"), strict=True))  # as tables call them


class WrongOutputs(ValueError):
    """A provider returned something other than a loss and five gradients."""


def tensors(outputs: Any) -> list[Tensor]:
    """Return loss and gradients as a flat list, in parameter order.

    Raises:
        WrongOutputs: the outputs are not a pair of a loss and five gradients, each a real tensor, array or number.
    """
    if not _is_plain_sequence(outputs) or len(outputs) != 2:
        many = f" of {len(outputs)} values" if isinstance(outputs, tuple | list) else ""
        raise WrongOutputs(f"expected a pair, (loss, (five gradients)), got a {type(outputs).__name__}{many}")
    loss, grads = outputs
    if not _is_plain_sequence(grads):
        raise WrongOutputs(f"expected the gradients in a tuple or list, got a {type(grads).__name__}")
    try:
        values = [
            value if isinstance(value, Tensor) else torch.as_tensor(value, device="cpu") for value in (loss, *grads)
        ]
    except (TypeError, ValueError, RuntimeError) as error:
        raise WrongOutputs(f"expected tensors in (loss, (five gradients)): {error}") from None
    if len(values) != len(OUTPUTS):
        raise WrongOutputs(f"expected a loss and five gradients, got a loss and {len(values) - 1}")
    for name, value in zip(OUTPUTS, values, strict=True):
        if type(value) not in (Tensor, torch.nn.Parameter):  # a subclass may compute lazily
            raise WrongOutputs(f"{name}: expected a plain tensor, got {type(value).__name__}")
        if value.dtype.is_complex or value.layout != torch.strided or value.device.type == "meta":
            raise WrongOutputs(
                f"{name}: expected a dense real tensor, got {value.dtype}, {value.layout}, {value.device}"
            )
    return values


def _is_plain_sequence(outputs: Any) -> bool:
    """Return whether this is a tuple, named tuple or list whose iteration computes nothing."""
    return isinstance(outputs, tuple | list) and type(outputs).__iter__ in (tuple.__iter__, list.__iter__)


def flaws(values: Sequence[Tensor], inputs: Inputs) -> list[Finding]:
    """Return a finding for each gradient that lacks its parameter's shape or dtype."""
    found = []
    for name, value, parameter in zip(OUTPUTS[1:], values[1:], inputs[:5], strict=True):
        if value.shape != parameter.shape:
            message = f"{name} has shape {tuple(value.shape)}, expected {tuple(parameter.shape)}"
            found.append(Finding(Code.BAD_SHAPE, message, name))
        elif value.dtype != parameter.dtype:
            message = f"{name} is {str(value.dtype)[6:]}, expected {str(parameter.dtype)[6:]}"
            found.append(Finding(Code.BAD_DTYPE, message, name))
    return found


def changed_inputs(inputs: Inputs, before: Fingerprints) -> list[Finding]:
    """Return a finding for each input whose bits differ from the fingerprints taken before the call."""
    after = fingerprints(inputs)
    return [
        Finding(Code.CHANGED_INPUT, f"changed its input {name}") for name, bits in before.items() if after[name] != bits
    ]
