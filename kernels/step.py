"""One step of a call, on plain tensors: check, choose a backend, run it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels import tiled
from kernels.backends import choose
from kernels.call import Call
from kernels.decoding import check_exact
from kernels.precision import resolve_precision
from kernels.problem import Grads, check_problem

StepResult = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]  # the loss, and the gradients in parameter order


def evaluate(call: Call, gradients: bool) -> tuple[Tensor, Grads | None]:
    """Return the loss, 0-d float64, and the gradients if requested. Every tensor must be plain: see `admission`."""
    parameters, observations, reg, backend, precision, deterministic = call
    problem = check_problem(parameters, observations, reg)
    precision = resolve_precision(precision)
    deterministic = deterministic or torch.are_deterministic_algorithms_enabled()
    module = choose(backend, problem, precision, deterministic)
    check_exact(observations, problem.dtype)
    if not (observations.ratings.numel() and parameters[0].numel()):
        module = tiled  # nothing to fuse: no kernel has to handle empty sizes
    result: tuple[Tensor, Grads | None] = module.step(problem, precision, deterministic, gradients)
    return result


def loss_and_grads(call: Call) -> tuple[Tensor, Grads]:
    """Return the loss and the gradients."""
    loss, grads = evaluate(call, gradients=True)
    assert grads is not None  # they were requested
    return loss, grads


def save_grads(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """Keep the gradients for `scale_grads`."""
    _, *grads = output
    ctx.save_for_backward(*grads)
    ctx.mark_non_differentiable(*grads)
    ctx.set_materialize_grads(False)
    ctx.other_inputs = len(inputs) - len(grads)


def scale_grads(ctx: Any, d_loss: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    """Return the derivatives of what the loss is used for, given that by the loss."""
    if torch.is_grad_enabled():
        raise RuntimeError("mf_loss has first derivatives only: create_graph=True asks for a second derivative")
    grads = ctx.saved_tensors
    undifferentiated = (None,) * ctx.other_inputs
    if d_loss is None:
        return *(None for _ in grads), *undifferentiated
    scale = d_loss.to(grads[0].dtype)
    return *(grad * scale for grad in grads), *undifferentiated


class EagerStep(torch.autograd.Function):
    """The step without the dispatcher, whose Python path would add some 200 us to an eager call."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, ...]:
        """Evaluate the call that follows the parameters; autograd sees only these."""
        loss, grads = loss_and_grads(arguments[-1])
        output = loss, *grads
        save_grads(ctx, arguments, output)
        return output

    backward = staticmethod(scale_grads)
