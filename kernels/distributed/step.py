"""One step over processes: the local step without regulariser, the sums, and the regulariser counted once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kernels.admission import admit
from kernels.call import Call
from kernels.distributed.agreement import check_agreement
from kernels.distributed.failure import naming_missing_processes
from kernels.distributed.group import Axes, Group, resolve_axes
from kernels.distributed.reduction import sum_over_processes
from kernels.interception import is_ordinary, is_transformed
from kernels.loss import loss_of, step_of, wants_gradient
from kernels.problem import Grads, check_problem, squared_norms
from kernels.step import save_grads, scale_grads


class GroupCall(NamedTuple):
    """The arguments of a public function, on plain tensors: this process's block of the problem."""

    call: Call
    group: Any = None  # as the caller passed it, or the mesh of `DTensor`s
    whole: tuple[int, int] | None = None  # all users and items, if `DTensor`s shard them; None: any number on each


def group_step(of: GroupCall) -> tuple[Tensor, Grads]:
    """Return the loss of the whole problem, and the whole gradients of the parameters that this process holds."""
    call, axes = _prepare(of, gradients=True)
    return _step(call, axes)


def group_loss(of: GroupCall, differentiable: bool) -> Tensor:
    """Return the loss of the whole problem, with derivatives in the parameters if it shall be differentiable."""
    gradients = differentiable and wants_gradient(of.call)
    call, axes = _prepare(of, gradients)
    if gradients:
        loss: Tensor
        loss, *_ = GroupStep.apply(*call.parameters, call, axes)
        return loss
    loss = loss_of(call._replace(reg=0.0), differentiable=False)
    share = loss + _penalty(call, axes)
    for group in axes:
        (share,) = _sum((), (share,), group, call)
    return share


class GroupStep(torch.autograd.Function):
    """The step over processes. The gradients are complete after the forward pass: backward only scales them."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, ...]:
        """Evaluate the call that follows the parameters; autograd sees only these."""
        call, axes = arguments[5:]
        loss, grads = _step(call, axes)
        output = loss, *grads
        save_grads(ctx, arguments, output)
        return output

    backward = staticmethod(scale_grads)


def _prepare(of: GroupCall, gradients: bool) -> tuple[Call, Axes]:
    """Return the call and the groups, checked here and compared with the other processes.

    Raises:
        RuntimeError: a transform of `torch.func` is in progress.
    """
    if is_transformed():
        raise RuntimeError("kernels.distributed: expected a plain call, got one under a transform of torch.func")
    call = of.call if is_ordinary(of.call) else admit(of.call)
    problem = check_problem(call.parameters, call.observations, call.reg)
    axes = resolve_axes(of.group, problem.device)
    if axes.size > 1:
        check_agreement(problem, gradients, _is_deterministic(call), axes, of.whole)
    return call, axes


def _step(call: Call, axes: Axes) -> tuple[Tensor, Grads]:
    if axes.size == 1:
        return step_of(call)
    P, Q, bu, bi, _ = (parameter.detach() for parameter in call.parameters)
    reg = call.reg
    loss, (dP, dQ, dbu, dbi, dmu) = step_of(call._replace(reg=0.0))
    numbers = [loss + _penalty(call, axes), dmu.double()]  # in float64 the same bits on every process of a mesh
    dP, dbu, *numbers = _sum((dP, dbu), numbers, axes.items, call)
    dQ, dbi, loss, total = _sum((dQ, dbi), numbers, axes.users, call)
    if reg:
        for gradient, parameter in ((dP, P), (dQ, Q), (dbu, bu), (dbi, bi)):
            gradient.add_(parameter, alpha=2 * reg)
    return loss, Grads(dP, dQ, dbu, dbi, total.to(dmu.dtype))


def _sum(tensors: Sequence[Tensor], numbers: Sequence[Tensor], group: Group, call: Call) -> list[Tensor]:
    with naming_missing_processes(group):
        return sum_over_processes(tensors, numbers, group, _is_deterministic(call))


def _penalty(call: Call, axes: Axes) -> Tensor | float:
    """Return this process's share of the regulariser, 0-d float64."""
    if not call.reg:
        return 0.0
    P, Q, bu, bi, _ = call.parameters
    of_users = _counted_once(squared_norms((P, bu)), axes.items)
    of_items = _counted_once(squared_norms((Q, bi)), axes.users)
    return call.reg * (of_users + of_items)


def _counted_once(value: Tensor, group: Group) -> Tensor:
    """Return what every process of a group has on the first of them, and 0 on the others."""
    if group.size == 1:
        return value
    first = torch.arange(1, device=value.device)[0] == group.process  # a tensor, since a process may stand for several
    return torch.where(first, value, torch.zeros_like(value))


def _is_deterministic(call: Call) -> bool:
    return call.deterministic or torch.are_deterministic_algorithms_enabled()
