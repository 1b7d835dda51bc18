"""One step over a group: the local step without regulariser, the sum, and the regulariser counted once."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from kernels.admission import admit
from kernels.call import Call
from kernels.distributed.agreement import check_agreement
from kernels.distributed.failure import naming_missing_processes
from kernels.distributed.group import Group, resolve_group
from kernels.distributed.reduction import sum_over_processes
from kernels.interception import is_ordinary, is_transformed
from kernels.loss import loss_of, step_of, wants_gradient
from kernels.problem import Grads, check_problem, squared_norms
from kernels.step import save_grads, scale_grads


class GroupCall(NamedTuple):
    """The arguments of a public function, on plain tensors: of this process's users, and of all items."""

    call: Call
    group: Any = None  # as the caller passed it
    process: int | None = None  # this one's place in the group, if a mesh knows it
    all_users: int | None = None  # of all processes, if a mesh shards them; None: each has any number


def group_step(of: GroupCall) -> tuple[Tensor, Grads]:
    """Return the loss of the whole problem, the gradients of this process's users, and the items' whole gradients."""
    call, group = _prepare(of, gradients=True)
    return _step(call, group)


def group_loss(of: GroupCall, differentiable: bool) -> Tensor:
    """Return the loss of the whole problem, with derivatives in the parameters if it shall be differentiable."""
    gradients = differentiable and wants_gradient(of.call)
    call, group = _prepare(of, gradients)
    if gradients:
        loss: Tensor
        loss, *_ = GroupStep.apply(*call.parameters, call, group)
        return loss
    loss = loss_of(call._replace(reg=0.0), differentiable=False)
    share = loss + _penalty(call, group)
    with naming_missing_processes(group):
        (loss,) = sum_over_processes((), share, group, _is_deterministic(call))
    return loss


class GroupStep(torch.autograd.Function):
    """The step over a group. The gradients are complete after the forward pass: backward only scales them."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, ...]:
        """Evaluate the call that follows the parameters; autograd sees only these."""
        call, group = arguments[5:]
        loss, grads = _step(call, group)
        output = loss, *grads
        save_grads(ctx, arguments, output)
        return output

    backward = staticmethod(scale_grads)


def _prepare(of: GroupCall, gradients: bool) -> tuple[Call, Group]:
    """Return the call and the group, checked here and compared with the other processes.

    Raises:
        RuntimeError: a transform of `torch.func` is in progress.
    """
    if is_transformed():
        raise RuntimeError("kernels.distributed: expected a plain call, got one under a transform of torch.func")
    call = of.call if is_ordinary(of.call) else admit(of.call)
    problem = check_problem(call.parameters, call.observations, call.reg)
    group = resolve_group(of.group, problem.device)
    if of.process is not None:
        group = group._replace(process=of.process)
    if group.size > 1:
        with naming_missing_processes(group):
            check_agreement(problem, gradients, _is_deterministic(call), group, of.all_users)
    return call, group


def _step(call: Call, group: Group) -> tuple[Tensor, Grads]:
    P, Q, bu, bi, _ = (parameter.detach() for parameter in call.parameters)
    reg = call.reg
    loss, (dP, dQ, dbu, dbi, dmu) = step_of(call._replace(reg=0.0))
    share = loss + _penalty(call, group)
    with naming_missing_processes(group):
        dQ, dbi, dmu, loss = sum_over_processes((dQ, dbi, dmu), share, group, _is_deterministic(call))
    if reg:
        for gradient, parameter in ((dP, P), (dQ, Q), (dbu, bu), (dbi, bi)):
            gradient.add_(parameter, alpha=2 * reg)
    return loss, Grads(dP, dQ, dbu, dbi, dmu)


def _penalty(call: Call, group: Group) -> Tensor | float:
    """Return this process's share of the regulariser, 0-d float64: its users, and on the first process the items."""
    if not call.reg:
        return 0.0
    P, Q, bu, bi, _ = call.parameters
    first = torch.arange(1, device=P.device)[0] == group.process  # a tensor, since a process may stand for several
    items = squared_norms((Q, bi))
    return call.reg * (squared_norms((P, bu)) + torch.where(first, items, torch.zeros_like(items)))


def _is_deterministic(call: Call) -> bool:
    return call.deterministic or torch.are_deterministic_algorithms_enabled()
