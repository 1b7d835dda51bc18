"""The formula and near misses of it, evaluated by the float64 oracle: what a kernel that forgot something gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mfbench.problems.inputs import Inputs
from reference import oracle_loss_and_grads

MOST_ELEMENTS = 1 << 22  # ratings, beyond which the near misses would take too long

BIASES = {"user_bias": "bu", "item_bias": "bi", "global_bias": "mu"}


def flat(result: tuple[object, Sequence[object]]) -> list[np.ndarray]:
    """Loss and gradients as float64 arrays."""
    loss, grads = result
    return [np.asarray(value, dtype=np.float64) for value in (loss, *grads)]


def penalties(inputs: Inputs) -> list[np.ndarray]:
    """The regulariser's share of the loss and of every gradient; of the global bias what it would be if it had one."""
    parameters = [parameter.detach().double().numpy() for parameter in inputs[:5]]
    loss = inputs.reg * sum(float((parameter**2).sum()) for parameter in parameters[:4])
    return [np.asarray(loss), *(2 * inputs.reg * parameter for parameter in parameters)]


def wrong(inputs: Inputs) -> dict[str, list[np.ndarray]]:
    """Loss and gradients of near misses, by what is wrong with them; none where the problem is large."""
    if inputs.ratings.numel() > MOST_ELEMENTS:
        return {}
    own = penalties(inputs)
    found = {}
    for name, letter in BIASES.items():
        zeroed: dict[str, Any] = {name: torch.zeros_like(getattr(inputs, name))}
        values, without = flat(oracle_loss_and_grads(*inputs._replace(**zeroed))), penalties(inputs._replace(**zeroed))
        # only the prediction lacks the bias; the regulariser has it
        found[f"lacks {letter} in the prediction"] = [
            value + share - other if place < 5 else value
            for place, (value, share, other) in enumerate(zip(values, own, without, strict=True))
        ]
    if inputs.mask is not None and bool(torch.isfinite(inputs.ratings).all()):
        everywhere = inputs._replace(mask=torch.ones_like(inputs.mask))
        found["counts the unobserved places too"] = flat(oracle_loss_and_grads(*everywhere))
        zeros = everywhere._replace(ratings=inputs.ratings.masked_fill(inputs.mask == 0, 0))
        found["takes unobserved ratings for zeros"] = flat(oracle_loss_and_grads(*zeros))
    return found
