"""The step as PyTorch operators, whose arguments cannot be bundles: for compilers, tracers and dispatch modes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.admission import check_plain
from kernels.call import Call
from kernels.problem import Grads, check_number, check_problem
from kernels.step import StepResult, evaluate, loss_and_grads, save_grads, scale_grads

_ARGUMENTS = ", ".join([
    *(f"Tensor {name}" for name in Grads._fields),
    "Tensor ratings, Tensor? mask, Tensor? levels, bool packed, Tensor? occupied",
    "Tensor? rows, Tensor? columns, SymInt items",
    "Tensor reg, str backend, str? precision, bool deterministic",
])  # fmt: skip


def arguments_of(call: Call) -> tuple[Any, ...]:
    """Return the operators' arguments. `reg` is a 0-d tensor: a compiler would compile anew for every number.

    Raises:
        TypeError: `reg` is not a number.
    """
    check_number("reg", call.reg)
    parameters, observations, reg, *options = call
    return *parameters, *observations, torch.zeros((), dtype=torch.float64, device="cpu") + reg, *options


def detached_arguments_of(call: Call) -> tuple[Any, ...]:
    """Return the operators' arguments without what autograd knows of them."""
    return tuple(value.detach() if isinstance(value, Tensor) else value for value in arguments_of(call))


def _call_of(arguments: tuple[Any, ...]) -> Call:
    """Return the call that the arguments came from, on plain tensors."""
    call = Call.of_flat(arguments)
    check_plain(call)
    return call._replace(reg=float(call.reg))


def _step(*arguments: Any) -> StepResult:
    loss, grads = loss_and_grads(_call_of(arguments))
    return loss, *grads


def _loss(*arguments: Any) -> Tensor:
    return evaluate(_call_of(arguments), gradients=False)[0]


def _fake_step(*arguments: Any) -> tuple[Tensor, ...]:
    parameters, observations, *_ = Call.of_flat(arguments)
    problem = check_problem(parameters, observations, reg=0.0)  # its value is not known yet
    loss = problem.parameters[0].new_empty((), dtype=torch.float64)
    return loss, *(parameter.new_empty(parameter.shape) for parameter in problem.parameters)


def _fake_loss(*arguments: Any) -> Tensor:
    return _fake_step(*arguments)[0]


step_op = torch.library.custom_op(
    "mfbench::step", _step, mutates_args=(),
    schema=f"({_ARGUMENTS}) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)  # fmt: skip
step_op.register_fake(_fake_step)
step_op.register_autograd(scale_grads, setup_context=save_grads)

loss_op = torch.library.custom_op("mfbench::loss", _loss, mutates_args=(), schema=f"({_ARGUMENTS}) -> Tensor")
loss_op.register_fake(_fake_loss)


def vmap_by_loop(function: Any, info: Any, in_dims: tuple[Any, ...], arguments: tuple[Any, ...]) -> tuple[Any, Any]:
    """Evaluate a batch one element after the other: a kernel has no batch dimension."""
    results = []
    for place in range(info.batch_size):
        element = (v if dim is None else v.select(dim, place) for v, dim in zip(arguments, in_dims, strict=True))
        result = function(*element)
        results.append(result if isinstance(result, tuple) else (result,))
    stacked = tuple(map(torch.stack, zip(*results, strict=True)))
    return (stacked, (0,) * len(stacked)) if isinstance(result, tuple) else (stacked[0], 0)


step_op.register_vmap(lambda info, in_dims, *arguments: vmap_by_loop(step_op, info, in_dims, arguments))
loss_op.register_vmap(lambda info, in_dims, *arguments: vmap_by_loop(loss_op, info, in_dims, arguments))
