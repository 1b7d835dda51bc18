"""The public functions, and the path that a call takes to the step."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from kernels.admission import admit, cast_for_autocast
from kernels.call import Call, bundle, with_arguments
from kernels.encoded import EncodedRatings
from kernels.interception import is_intercepted, is_ordinary, is_transformed
from kernels.operators import arguments_of, detached_arguments_of, loss_op, step_op
from kernels.precision import PRECISIONS as PRECISIONS  # the harness finds it here in every revision
from kernels.problem import Grads
from kernels.step import EagerStep, StepResult, evaluate, loss_and_grads
from kernels.transforms import transformed_loss, transformed_step, untraced_loss, untraced_step


@with_arguments(bundle)
def mf_loss_and_grads(call: Call) -> tuple[Tensor, Grads]:
    """Return loss and gradients of one full-batch step, from one pass over the ratings.

        pred = P Q' + bu + bi' + mu;  E = W * (pred - R) where observed, else 0
        loss = sum E^2 + reg * (|P|^2 + |Q|^2 + |bu|^2 + |bi|^2)

    Args:
        user_factors, item_factors: P (m, k) and Q (n, k), float32 or float64.
        user_bias, item_bias: bu (m,) or (m, 1) and bi (n,) or (n, 1), dtype as the factors.
        global_bias: mu () or (1,), dtype as the factors.
        ratings: R (m, n), float64, float32, bfloat16, float16, uint8 or int8; dense, or `torch.sparse_csr`, of which
            every stored entry is observed; or the result of `encode_ratings`, which checks sparse indices once.
            int32 and int64 are accepted if the parameters' dtype holds every observed rating exactly. Checking that
            takes a pass over the ratings in every call, which waits for a GPU: before a training loop, encode them.
        mask: (m, n). Float: the weights W, 0 = unobserved, rounded to the parameters' dtype. Bool or integer: non-zero
            = observed, and W is 1 there. None: NaN in `ratings` = missing.
        reg: weight of the squared norms; the global bias is not regularised.
        backend: "auto", "triton", "native", "torch" or "interpret".
        precision: of the products on a GPU: "ieee", "tf32x3", "bf16x3", "tf32"; None follows
            `torch.get_float32_matmul_precision()`. CPU backends compute in the parameters' dtype.
        deterministic: return bitwise the same result on every run on one device; implied by
            `torch.are_deterministic_algorithms_enabled()`.

    Returns:
        The loss, 0-d float64, and `Grads` with the parameters' shapes and dtypes.

    Raises:
        TypeError, ValueError: an argument's type, dtype, shape, device or value is wrong; the message names it.
        RuntimeError: the requested backend cannot run here.
    """
    return step_of(call)


@with_arguments(bundle)
def mf_loss(call: Call) -> Tensor:
    """Return the loss as a differentiable scalar. Arguments and errors are those of `mf_loss_and_grads`.

    If a gradient is required, forward computes all of them in the same pass, and backward scales them.

    Returns:
        The loss, 0-d float64, with first derivatives in the five parameters.

    Raises:
        RuntimeError: also for a second derivative, in the backward pass.
    """
    return loss_of(call, differentiable=True)


def mf_sse(
    user_factors: Tensor,
    item_factors: Tensor,
    user_bias: Tensor,
    item_bias: Tensor,
    global_bias: Tensor,
    ratings: Tensor | EncodedRatings,
    mask: Tensor | None = None,
    backend: str = "auto",
    precision: str | None = None,
    deterministic: bool = False,
) -> Tensor:
    """Return the sum of squared, weighted errors, 0-d float64: `mf_loss` without regulariser, forward only.

    Arguments and errors are those of `mf_loss_and_grads`.
    """
    call = bundle(
        user_factors, item_factors, user_bias, item_bias, global_bias, ratings, mask, 0.0,
        backend, precision, deterministic,
    )  # fmt: skip
    return loss_of(call, differentiable=False)


def step_of(call: Call) -> tuple[Tensor, Grads]:
    """Return the loss and the gradients of one step, whatever PyTorch has switched on."""
    if is_dynamo_compiling():
        call = cast_for_autocast(call)
        return _bundled(untraced_step(call) if is_transformed() else _operator_step(call))
    if is_ordinary(call):
        return loss_and_grads(call)
    call = admit(call)
    if is_transformed():
        return _bundled(transformed_step(call))
    return _bundled(_operator_step(call)) if is_intercepted(call) else loss_and_grads(call)


def _bundled(result: StepResult) -> tuple[Tensor, Grads]:
    loss, *grads = result
    return loss, Grads(*grads)


def loss_of(call: Call, differentiable: bool) -> Tensor:
    """Return the loss, with derivatives in the parameters that require them if it shall be differentiable."""
    if is_dynamo_compiling():
        call = cast_for_autocast(call)
        return untraced_loss(call) if is_transformed() else _operator_loss(call, differentiable)
    if is_ordinary(call):
        return _eager_loss(call, differentiable)
    call = admit(call)
    if is_transformed():
        return transformed_loss(call)
    return (_operator_loss if is_intercepted(call) else _eager_loss)(call, differentiable)


def _eager_loss(call: Call, differentiable: bool) -> Tensor:
    loss: Tensor
    if differentiable and wants_gradient(call):
        loss, *_ = EagerStep.apply(*call.parameters, call)
    else:
        loss, _ = evaluate(call, gradients=False)
    return loss


def _operator_step(call: Call) -> StepResult:
    result: StepResult = step_op(*detached_arguments_of(call))
    return result


def _operator_loss(call: Call, differentiable: bool) -> Tensor:
    loss: Tensor
    if differentiable and wants_gradient(call):
        loss, *_ = step_op(*arguments_of(call))
    else:
        loss = loss_op(*detached_arguments_of(call))
    return loss


def wants_gradient(call: Call) -> bool:
    """Return whether a gradient is required.

    Raises:
        ValueError: one of the ratings or the mask is.
    """
    ratings, mask, *_ = call.observations
    if ratings.requires_grad or (mask is not None and mask.requires_grad):
        name = "ratings" if ratings.requires_grad else "mask"
        raise ValueError(f"{name}: expected no requires_grad, since the loss is differentiated in the parameters only")
    return torch.is_grad_enabled() and any(parameter.requires_grad for parameter in call.parameters)
