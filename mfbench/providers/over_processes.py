"""Providers whose users are divided among processes, which sum up what belongs to all of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from kernels.distributed import mf_loss_and_grads
from kernels.loss import PRECISIONS
from mfbench.errors import UsageError
from mfbench.problems import matrices
from mfbench.problems.inputs import Inputs
from mfbench.providers.registry import Outputs, Step
from reference.autograd import gather_loss, notebook_loss, notebook_operands
from reference.problem import Triplets

FUSED: dict[str, dict[str, Any]] = {  # options of the step, by the provider's name
    "fused": {},
    "fused-deterministic": {"deterministic": True},
    "tiled": {"backend": "torch"},
    **{f"fused-{precision}": {"precision": precision} for precision in PRECISIONS},
}
EAGER = ("autograd", "gather")  # with an all-reduce
NAMES = (*FUSED, *EAGER)


def check(name: str, argument: str = "provider") -> None:
    """Check that a provider can run over several processes.

    Raises:
        UsageError: it computes alone.
    """
    if name not in NAMES:
        message = f"over several processes expected one of {', '.join(NAMES)}, got {name!r}"
        raise UsageError(message, code="bad-provider", argument=argument)


def prepare(name: str, inputs: Inputs) -> Step:
    """Return a step over the processes of the default group.

    Args:
        name: one of `NAMES`.
        inputs: this process's users, and all items.

    Returns:
        A function that returns the loss of the whole problem, the gradients of this process's users, and the whole
        gradients of the items and the global bias.
    """
    if name in FUSED:
        return functools.partial(mf_loss_and_grads, *inputs, **FUSED[name])
    if name == "gather":
        ratings = inputs.ratings if inputs.sparse else matrices.to_sparse(inputs.ratings, inputs.mask)
        return _with_all_reduce(gather_loss, inputs, Triplets.of(ratings))
    inputs = inputs.dense()
    return _with_all_reduce(notebook_loss, inputs, notebook_operands(inputs.ratings, inputs.mask))


def _with_all_reduce(loss_function: Callable[..., Tensor], inputs: Inputs, operands: Sequence[Tensor]) -> Step:
    """Return the step that a PyTorch user would write: autograd on the own users, then one flat buffer summed."""
    parameters = [parameter.detach().requires_grad_() for parameter in inputs[:5]]
    p, q, bu, bi, u = parameters
    shared = inputs.reg / dist.get_world_size()  # of the items' parameters, which every process has

    def step() -> Outputs:
        loss = (
            loss_function(p, q, bu, bi, u, *operands, reg=0.0)
            + inputs.reg * (p.square().sum() + bu.square().sum())
            + shared * (q.square().sum() + bi.square().sum())
        )
        dP, dQ, dbu, dbi, dmu = torch.autograd.grad(loss, parameters)
        flat = torch.cat([dQ.flatten(), dbi.flatten(), dmu.flatten()])
        loss = loss.detach()
        dist.all_reduce(flat)
        dist.all_reduce(loss)
        dQ, dbi, dmu = (
            part.view_as(like)
            for part, like in zip(flat.split([dQ.numel(), dbi.numel(), dmu.numel()]), (q, bi, u), strict=True)
        )
        return loss, (dP, dQ, dbu, dbi, dmu)

    return step
