"""Evaluate common mistakes in the formula with the float64 oracle, to recognise a kernel that makes one of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mfbench.problems import matrices
from mfbench.problems.inputs import Inputs
from reference import oracle_loss_and_grads

MAX_RATINGS = 1 << 22  # most places, or sparse ratings, for which near misses are evaluated; more would take too long

BIASES = {"user_bias": "bu", "item_bias": "bi", "global_bias": "mu"}


def to_arrays(result: tuple[object, Sequence[object]]) -> list[np.ndarray]:
    """Return loss and gradients as a flat list of float64 arrays."""
    loss, grads = result
    return [np.asarray(value, dtype=np.float64) for value in (loss, *grads)]


def penalties(inputs: Inputs) -> list[np.ndarray]:
    """Return the regulariser's contribution to the loss and to every gradient.

    The last entry is what the global bias would contribute, although it is not regularised.
    """
    parameters = [parameter.detach().double().numpy() for parameter in inputs[:5]]
    loss = inputs.reg * sum(float((parameter**2).sum()) for parameter in parameters[:4])
    return [np.asarray(loss), *(2 * inputs.reg * parameter for parameter in parameters)]


def near_misses(inputs: Inputs) -> dict[str, list[np.ndarray]]:
    """Return loss and gradients of near misses by a description of the mistake; empty for a large problem."""
    if (inputs.observed if inputs.sparse else inputs.ratings.numel()) > MAX_RATINGS:
        return {}
    penalty = penalties(inputs)
    found = {}
    for name, letter in BIASES.items():
        zeroed: dict[str, Any] = {name: torch.zeros_like(getattr(inputs, name))}
        values = to_arrays(oracle_loss_and_grads(*inputs._replace(**zeroed)))
        zeroed_penalty = penalties(inputs._replace(**zeroed))
        # the bias is missing from the prediction alone, not from the regulariser
        found[f"lacks {letter} in the prediction"] = [
            value + share - other if place < 5 else value
            for place, (value, share, other) in enumerate(zip(values, penalty, zeroed_penalty, strict=True))
        ]
    for what, dropped in _dropped(inputs).items():
        kept, _ = matrices.split(inputs.ratings, dropped)
        found[what] = to_arrays(oracle_loss_and_grads(*inputs._replace(ratings=kept)))
    if inputs.mask is not None and bool(torch.isfinite(inputs.ratings).all()):
        everywhere = inputs._replace(mask=torch.ones_like(inputs.mask))
        found["includes the unobserved ratings"] = to_arrays(oracle_loss_and_grads(*everywhere))
        zeros = everywhere._replace(ratings=inputs.ratings.masked_fill(inputs.mask == 0, 0))
        found["treats unobserved ratings as zeros"] = to_arrays(oracle_loss_and_grads(*zeros))
    if inputs.mask is not None and inputs.weighted:
        binary, roots = inputs.mask != 0, inputs.mask.double().abs().sqrt()
        found["treats the weights as a binary mask"] = to_arrays(oracle_loss_and_grads(*inputs._replace(mask=binary)))
        found["has the weights to the first power, not squared"] = to_arrays(
            oracle_loss_and_grads(*inputs._replace(mask=roots))
        )
    return found


def _dropped(inputs: Inputs) -> dict[str, Tensor]:
    """Return the positions of the sparse ratings that a mistake leaves out, by what the mistake is."""
    if not inputs.sparse:
        return {}
    starts, _, values = matrices.parts(inputs.ratings)
    rated = starts.diff() > 0
    return {
        "leaves out the first rating of every user": starts[:-1][rated].long(),
        "leaves out the last rating of every user": starts[1:][rated].long() - 1,
        "leaves out the ratings that are 0": (values == 0).nonzero().squeeze(1),
    }
