"""The public functions, and the differentiable operator behind `mf_loss`."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from kernels import tiled
from kernels.backends import choose
from kernels.encoding import EncodedRatings, check_exact, observations_of
from kernels.problem import Grads, Observations, Parameters, check_problem

PRECISIONS = ("ieee", "tf32x3", "bf16x3", "tf32")
_PRECISION_OF_TORCH = {"highest": "ieee", "high": "bf16x3", "medium": "tf32"}


def mf_loss_and_grads(
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
) -> tuple[Tensor, Grads]:
    """Return loss and gradients of one full-batch step, from one pass over the ratings.

        pred = P Q' + bu + bi' + mu;  E = W * (pred - R) where observed, else 0
        loss = sum E^2 + reg * (|P|^2 + |Q|^2 + |bu|^2 + |bi|^2)

    Args:
        user_factors, item_factors: P (m, k) and Q (n, k), float32 or float64.
        user_bias, item_bias: bu (m,) or (m, 1) and bi (n,) or (n, 1), dtype as the factors.
        global_bias: mu () or (1,), dtype as the factors.
        ratings: R (m, n), float64, float32, bfloat16, float16, uint8 or int8, or the result of `encode_ratings`.
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
    parameters = (user_factors, item_factors, user_bias, item_bias, global_bias)
    call = Call(parameters, observations_of(ratings, mask), reg, backend, precision, deterministic)
    loss, *grads = step_op(*_detached(call)) if torch.compiler.is_compiling() else _loss_and_grads(call)
    return loss, Grads(*grads)


def mf_loss(
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
) -> Tensor:
    """Return the loss as a differentiable scalar. Arguments and errors are those of `mf_loss_and_grads`.

    If a gradient is required, forward computes all of them in the same pass, and backward scales them.

    Returns:
        The loss, 0-d float64, with first derivatives in the five parameters.

    Raises:
        RuntimeError: also for a second derivative, in the backward pass.
    """
    parameters = (user_factors, item_factors, user_bias, item_bias, global_bias)
    call = Call(parameters, observations_of(ratings, mask), reg, backend, precision, deterministic)
    if _requires_grad(call.observations.ratings):
        raise ValueError("ratings: expected no requires_grad, since the loss is differentiated in the parameters only")
    if call.observations.mask is not None and _requires_grad(call.observations.mask):
        raise ValueError("mask: expected no requires_grad, since the loss is differentiated in the parameters only")
    if not torch.is_grad_enabled() or not any(map(_requires_grad, parameters)):
        return _loss_alone(call)
    if torch.compiler.is_compiling():
        return step_op(*_flat(call))[0]
    return EagerStep.apply(*parameters, call)[0]


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
    parameters = (user_factors, item_factors, user_bias, item_bias, global_bias)
    return _loss_alone(Call(parameters, observations_of(ratings, mask), 0.0, backend, precision, deterministic))


class Call(NamedTuple):
    """The arguments of a public function."""

    parameters: Parameters
    observations: Observations
    reg: float
    backend: str
    precision: str | None
    deterministic: bool


def resolve_precision(precision: str | None) -> str:
    """Return the requested precision, or the one that torch is set to if it is None.

    Raises:
        ValueError: no precision has that name.
    """
    if precision is None:
        return _PRECISION_OF_TORCH[torch.get_float32_matmul_precision()]
    if precision not in PRECISIONS:
        raise ValueError(f"precision: expected None or one of {', '.join(PRECISIONS)}, got {precision!r}")
    return precision


def _requires_grad(argument: Any) -> bool:
    return getattr(argument, "requires_grad", False)  # anything but a tensor is refused later, by name


def _evaluate(call: Call, gradients: bool) -> tuple[Tensor, Grads | None]:
    problem = check_problem(call.parameters, call.observations, call.reg)
    precision = resolve_precision(call.precision)
    deterministic = call.deterministic or torch.are_deterministic_algorithms_enabled()
    module = choose(call.backend, problem, precision, deterministic)
    check_exact(problem.observations, problem.dtype)
    if 0 in problem.shape:
        module = tiled  # nothing to fuse: no kernel has to handle empty sizes
    return module.step(problem, precision, deterministic, gradients)


def _loss_and_grads(call: Call) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    loss, grads = _evaluate(call, gradients=True)
    assert grads is not None  # they were requested
    return loss, *grads


def _loss_alone(call: Call) -> Tensor:
    if torch.compiler.is_compiling():
        return loss_op(*_detached(call))
    return _evaluate(call, gradients=False)[0]


# ---------------------------------------------------------------- the operators, whose arguments cannot be bundles


def _flat(call: Call) -> tuple[Any, ...]:
    """Return the operators' arguments."""
    parameters, observations, *options = call
    return *parameters, *observations, *options


def _detached(call: Call) -> tuple[Any, ...]:
    return tuple(value.detach() if isinstance(value, Tensor) else value for value in _flat(call))


def _bundled(arguments: tuple[Any, ...]) -> Call:
    """Return the call that `_flat` flattened."""
    parameters, observations, options = arguments[:5], arguments[5:10], arguments[10:]
    return Call(parameters, Observations(*observations), *options)


def _step(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    return _loss_and_grads(_bundled(arguments))


def _loss(*arguments: Any) -> Tensor:
    return _evaluate(_bundled(arguments), gradients=False)[0]


def _fake_step(*arguments: Any) -> tuple[Tensor, ...]:
    parameters, observations, reg, *_ = _bundled(arguments)
    problem = check_problem(parameters, observations, reg)
    loss = problem.parameters[0].new_empty((), dtype=torch.float64)
    return loss, *(parameter.new_empty(parameter.shape) for parameter in problem.parameters)


def _fake_loss(*arguments: Any) -> Tensor:
    return _fake_step(*arguments)[0]


def _save_grads(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, *grads = output
    ctx.save_for_backward(*grads)
    ctx.mark_non_differentiable(*grads)
    ctx.set_materialize_grads(False)
    ctx.other_inputs = len(inputs) - len(grads)


def _scale_grads(ctx: Any, d_loss: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    if torch.is_grad_enabled():
        raise RuntimeError("mf_loss has first derivatives only: create_graph=True asks for a second derivative")
    grads = ctx.saved_tensors
    undifferentiated = (None,) * ctx.other_inputs
    if d_loss is None:
        return *(None for _ in grads), *undifferentiated
    scale = d_loss.to(grads[0].dtype)
    return *(grad * scale for grad in grads), *undifferentiated


_ARGUMENTS = ", ".join([
    *(f"Tensor {name}" for name in Grads._fields),
    "Tensor ratings, Tensor? mask, Tensor? levels, bool packed, Tensor? occupied",
    "float reg, str backend, str? precision, bool deterministic",
])  # fmt: skip

step_op = torch.library.custom_op(
    "mfbench::step", _step, mutates_args=(),
    schema=f"({_ARGUMENTS}) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)  # fmt: skip
step_op.register_fake(_fake_step)
step_op.register_autograd(_scale_grads, setup_context=_save_grads)

loss_op = torch.library.custom_op("mfbench::loss", _loss, mutates_args=(), schema=f"({_ARGUMENTS}) -> Tensor")
loss_op.register_fake(_fake_loss)


class EagerStep(torch.autograd.Function):
    """The step without the dispatcher, whose Python path would add some 200 us to an eager call."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, ...]:
        """Evaluate the call that follows the parameters; autograd sees only these."""
        output = _loss_and_grads(arguments[-1])
        _save_grads(ctx, arguments, output)
        return output

    backward = staticmethod(_scale_grads)
