"""The step as PyTorch operators, whose arguments cannot be bundles: for compilers, tracers and dispatch modes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels.admission import check_plain
from kernels.call import Call
from kernels.problem import Grads, check_problem
from kernels.step import StepResult, evaluate, loss_and_grads, save_grads, scale_grads

_ARGUMENTS = ", ".join([
    *(f"Tensor {name}" for name in Grads._fields),
    "Tensor ratings, Tensor? mask, Tensor? levels, bool packed, Tensor? occupied",
    "float reg, str backend, str? precision, bool deterministic",
])  # fmt: skip


def _step(*arguments: Any) -> StepResult:
    call = Call.of_flat(arguments)
    check_plain(call)
    return loss_and_grads(call)


def _loss(*arguments: Any) -> Tensor:
    call = Call.of_flat(arguments)
    check_plain(call)
    return evaluate(call, gradients=False)[0]


def _fake_step(*arguments: Any) -> tuple[Tensor, ...]:
    parameters, observations, reg, *_ = Call.of_flat(arguments)
    problem = check_problem(parameters, observations, reg)
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
