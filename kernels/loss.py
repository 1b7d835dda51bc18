"""The public functions, and the differentiable operator behind `mf_loss`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kernels import tiled
from kernels.backends import choose
from kernels.encoding import EncodedRatings
from kernels.problem import Grads, Problem, check_problem

PRECISIONS = ("ieee", "tf32x3", "bf16x3", "tf32")
Encoding = tuple[Tensor | None, bool, Tensor | None]
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
    """Loss and gradients of one full-batch step, in one pass over the ratings.

        pred = P Q' + bu + bi' + mu;  E = pred - R where observed, else 0
        loss = sum E^2 + reg * (|P|^2 + |Q|^2 + |bu|^2 + |bi|^2)

    Args:
        user_factors, item_factors: P (m, k) and Q (n, k), float32 or float64.
        user_bias, item_bias: bu (m,) or (m, 1) and bi (n,) or (n, 1), dtype as the factors.
        global_bias: mu () or (1,), dtype as the factors.
        ratings: R (m, n), float64, float32, bfloat16, float16, uint8 or int8, or `encode_ratings(...)`.
        mask: (m, n), bool, integer or float, non-zero = observed; None: NaN in `ratings` = missing.
        reg: weight of the squared norms; the global bias is not regularised.
        backend: "auto", "triton", "native", "torch" or "interpret".
        precision: of the products on a GPU: "ieee", "tf32x3", "bf16x3", "tf32"; None follows
            `torch.get_float32_matmul_precision()`. A CPU computes in the parameters' dtype.
        deterministic: bitwise the same result on every run on one device; also on where
            `torch.are_deterministic_algorithms_enabled()`.

    Returns:
        The loss, 0-d float64, and `Grads` with the parameters' shapes and dtypes.

    Raises:
        TypeError, ValueError: an argument's type, dtype, shape, device or name; the message says which.
        RuntimeError: the backend asked for cannot run here.
    """
    ratings, mask, encoding = unwrap(ratings, mask)
    parameters = (user_factors, item_factors, user_bias, item_bias, global_bias)
    arguments = (*parameters, ratings, mask, reg, backend, precision, deterministic, *encoding)
    loss, *grads = _without_derivatives(step_op, _step, arguments)
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
    """The loss as a differentiable scalar: arguments and errors as for `mf_loss_and_grads`.

    Forward computes the gradients in the same pass where one is wanted; backward scales them.

    Returns:
        The loss, 0-d float64, with first derivatives in the five parameters.

    Raises:
        RuntimeError: in a second backward pass, a second derivative.
    """
    ratings, mask, encoding = unwrap(ratings, mask)
    parameters = (user_factors, item_factors, user_bias, item_bias, global_bias)
    arguments = (*parameters, ratings, mask, reg, backend, precision, deterministic, *encoding)
    if _requires_grad(ratings):
        raise ValueError("ratings: expected no requires_grad, since the loss is differentiated in the parameters only")
    if torch.is_grad_enabled() and any(map(_requires_grad, parameters)):
        step = step_op if torch.compiler.is_compiling() else EagerStep.apply
        return step(*arguments)[0]
    return _without_derivatives(loss_op, _loss, arguments)


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
    """Sum of squared errors over the mask, 0-d float64: `mf_loss` without regulariser, forward only."""
    ratings, mask, encoding = unwrap(ratings, mask)
    parameters = (user_factors, item_factors, user_bias, item_bias, global_bias)
    arguments = (*parameters, ratings, mask, 0.0, backend, precision, deterministic, *encoding)
    return _without_derivatives(loss_op, _loss, arguments)


def _requires_grad(argument: Any) -> bool:
    return getattr(argument, "requires_grad", False)  # what is not a tensor is refused later, by name


def _without_derivatives(op: Callable[..., Any], function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """The operator where a compiler traces the call, else the function behind it: the same values, no graph."""
    if not torch.compiler.is_compiling():
        return function(*arguments)
    return op(*(value.detach() if isinstance(value, Tensor) else value for value in arguments))


def unwrap(ratings: Tensor | EncodedRatings, mask: Tensor | None) -> tuple[Tensor, Tensor | None, Encoding]:
    """Ratings, mask, and the rest as `Problem` has it: grid of the codes, whether the mask is packed, occupied blocks.

    Raises:
        ValueError: encoded ratings come with a second mask.
    """
    if not isinstance(ratings, EncodedRatings):
        return ratings, mask, (None, False, None)
    if mask is not None:
        raise ValueError("mask: expected None, since encoded ratings carry their mask; got a second one")
    return ratings.values, ratings.bits, (ratings.grid, ratings.bits is not None, ratings.occupied)


def resolve_precision(precision: str | None) -> str:
    """The precision asked for, or where it is None the one that torch is set to.

    Raises:
        ValueError: no precision has that name.
    """
    if precision is None:
        return _PRECISION_OF_TORCH[torch.get_float32_matmul_precision()]
    if precision not in PRECISIONS:
        raise ValueError(f"precision: expected None or one of {', '.join(PRECISIONS)}, got {precision!r}")
    return precision


def _run(
    problem: Problem, backend: str, precision: str | None, deterministic: bool, gradients: bool
) -> tuple[Tensor, Grads | None]:
    precision = resolve_precision(precision)
    deterministic = deterministic or torch.are_deterministic_algorithms_enabled()
    module = choose(backend, problem, precision, deterministic)
    if 0 in problem.ratings.shape or 0 in problem.user_factors.shape:
        module = tiled  # nothing to fuse: no kernel has to know empty sizes
    return module.step(problem, precision, deterministic, gradients)


def _step(
    user_factors: Tensor, item_factors: Tensor, user_bias: Tensor, item_bias: Tensor, global_bias: Tensor,
    ratings: Tensor, mask: Tensor | None, reg: float, backend: str, precision: str | None, deterministic: bool,
    grid: Tensor | None = None, packed: bool = False, occupied: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    parameters = (user_factors, item_factors, user_bias, item_bias, global_bias)
    problem = check_problem(*parameters, ratings, mask, reg, grid, packed, occupied)
    loss, grads = _run(problem, backend, precision, deterministic, gradients=True)
    assert grads is not None  # they were asked for
    return loss, *grads


def _fake_step(*arguments):
    problem = check_problem(*arguments[:8], *arguments[11:])
    return problem.user_factors.new_empty((), dtype=torch.float64), *(p.new_empty(p.shape) for p in problem.parameters)


def _save_grads(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, *grads = output
    ctx.save_for_backward(*grads)
    ctx.mark_non_differentiable(*grads)
    ctx.set_materialize_grads(False)


def _scale_grads(ctx: Any, d_loss: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    if torch.is_grad_enabled():
        raise RuntimeError("mf_loss has first derivatives only: create_graph=True asks for a second derivative")
    if d_loss is None:
        return (None,) * 14
    grads = ctx.saved_tensors
    scale = d_loss.to(grads[0].dtype)
    return *(grad * scale for grad in grads), *(None,) * 9


def _loss(
    user_factors: Tensor, item_factors: Tensor, user_bias: Tensor, item_bias: Tensor, global_bias: Tensor,
    ratings: Tensor, mask: Tensor | None, reg: float, backend: str, precision: str | None, deterministic: bool,
    grid: Tensor | None = None, packed: bool = False, occupied: Tensor | None = None,
) -> Tensor:  # fmt: skip
    parameters = (user_factors, item_factors, user_bias, item_bias, global_bias)
    problem = check_problem(*parameters, ratings, mask, reg, grid, packed, occupied)
    return _run(problem, backend, precision, deterministic, gradients=False)[0]


def _fake_loss(*arguments):
    return _fake_step(*arguments)[0]


step_op = torch.library.custom_op("mfbench::step", _step, mutates_args=())
step_op.register_fake(_fake_step)
step_op.register_autograd(_scale_grads, setup_context=_save_grads)

loss_op = torch.library.custom_op("mfbench::loss", _loss, mutates_args=())
loss_op.register_fake(_fake_loss)


class EagerStep(torch.autograd.Function):
    """The same operator without the dispatcher, whose Python path costs an eager call some 200 us more."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, ...]:
        output = _step(*arguments)
        _save_grads(ctx, arguments, output)
        return output

    backward = staticmethod(_scale_grads)
