"""The step under PyTorch's transforms: forward mode, `torch.func.grad`, `vmap`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._compile import _disable_dynamo

from kernels.admission import NAMES
from kernels.call import Call
from kernels.operators import arguments_of, step_op, vmap_by_loop
from kernels.problem import Grads
from kernels.step import StepResult


def transformed_step(call: Call) -> StepResult:
    """Return the loss and the gradients of one step, of which only the loss has derivatives, in either mode."""
    loss, *grads = Step.apply(*arguments_of(call))
    return loss, *FirstDerivatives.apply(*grads)


def transformed_loss(call: Call) -> Tensor:
    """Return the loss, which has first derivatives in either mode."""
    loss: Tensor
    loss, *_ = Step.apply(*arguments_of(call))
    return loss


# For code that is being compiled, which cannot trace them. `torch.compiler.disable` would import the compiler now.
untraced_step: Callable[[Call], StepResult] = _disable_dynamo(transformed_step)
untraced_loss: Callable[[Call], Tensor] = _disable_dynamo(transformed_loss)


class Step(torch.autograd.Function):
    """The operator, with the derivatives and the batching that transforms need."""

    @staticmethod
    def forward(*arguments: Any) -> StepResult:
        """Evaluate the operator."""
        output: StepResult = step_op(*arguments)
        return output

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: StepResult) -> None:
        """Keep the gradients for both modes."""
        _, *grads = output
        ctx.save_for_backward(*grads)
        ctx.save_for_forward(*grads)
        ctx.set_materialize_grads(False)
        ctx.other_inputs = len(inputs) - len(grads)

    @staticmethod
    def backward(ctx: Any, d_loss: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
        """Scale the gradients by the derivative by the loss."""
        _check_constant(ctx.needs_input_grad)
        grads = ctx.saved_tensors
        undifferentiated = (None,) * ctx.other_inputs
        if d_loss is None:
            return *(None for _ in grads), *undifferentiated
        scale = d_loss.to(grads[0].dtype)
        return *(grad * scale for grad in FirstDerivatives.apply(*grads)), *undifferentiated

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> tuple[Tensor, ...]:
        """Return the derivative of the loss along the parameters' tangents.

        The gradients get a tangent that is never used: `FirstDerivatives` refuses it.
        """
        _check_constant([tangent is not None for tangent in tangents])
        grads = FirstDerivatives.apply(*ctx.saved_tensors)
        along = [
            (grad.double() * tangent.double()).sum()
            for grad, tangent in zip(grads, tangents, strict=False)
            if tangent is not None
        ]
        return torch.stack(along).sum(), *map(torch.zeros_like, grads)

    vmap = staticmethod(lambda info, in_dims, *arguments: vmap_by_loop(Step.apply, info, in_dims, arguments))


def _check_constant(differentiated: Sequence[bool]) -> None:
    """Raise ValueError where an argument other than a parameter is differentiated."""
    for place in range(len(Grads._fields), len(differentiated)):
        if differentiated[place]:
            raise ValueError(
                f"{NAMES[place]}: expected a constant, since the loss is differentiated in the parameters only; "
                "got a derivative by it"
            )


class FirstDerivatives(torch.autograd.Function):
    """The identity on gradients, which refuses to be differentiated."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*grads: Tensor) -> tuple[Tensor, ...]:
        """Return copies of the gradients."""
        return tuple(grad.clone() for grad in grads)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        """Keep nothing."""
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        """Raise RuntimeError."""
        raise RuntimeError("mf_loss has first derivatives only: a second derivative was requested")

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> Any:
        """Raise RuntimeError."""
        raise RuntimeError("mf_loss has first derivatives only: a derivative of its gradients was requested")
