"""The public functions: those of `kernels`, over several processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch._compile import _disable_dynamo
from torch.compiler import is_dynamo_compiling

from kernels.call import bundle, with_arguments
from kernels.distributed.sharding import sharding_of
from kernels.distributed.step import GroupCall, group_loss, group_step
from kernels.encoded import EncodedRatings
from kernels.problem import Grads


def bundle_for_group(
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
    group: Any = None,
) -> GroupCall:
    """Return the arguments of a public function. Those are of `kernels.call.bundle`, and `group`."""
    call = bundle(
        user_factors, item_factors, user_bias, item_bias, global_bias, ratings, mask, reg,
        backend, precision, deterministic,
    )  # fmt: skip
    return GroupCall(call, group)


@with_arguments(bundle_for_group)
def mf_loss_and_grads(of: GroupCall) -> tuple[Tensor, Grads]:
    """Return the loss of the whole problem, and the whole gradients of the parameters that this process holds.

    Every process calls it, with its own users' rows, and the same items and global bias. On a mesh of users x items
    each has a block of the ratings, and the parameters of its users and its items: processes in a row of the mesh the
    same users, those in a column the same items. Processes exchange one message, which adds up squared errors and the
    gradients of what they share; on a mesh one along each dimension.

    Args:
        user_factors, user_bias: as of `kernels.mf_loss_and_grads`, of this process's users, any number of them, 0
            included. `DTensor`s are `Shard(0)` over the mesh's users, `Replicate()` over its items.
        item_factors, item_bias: the same on every process; on a mesh of this process's items, any number of them.
            `DTensor`s are `Replicate()` over the mesh's users, `Shard(0)` over its items if it has them.
        global_bias: the same on every process.
        ratings, mask: as of `kernels.mf_loss_and_grads`, of this process's users and items; columns of sparse ratings
            count from this process's first item. Beside parameters that are `DTensor`s they are `Shard(0)` over users
            and `Shard(1)` over items, or plain tensors with the local block; sparse or encoded ones always are.
        reg: as of `kernels.mf_loss_and_grads`, and the same on every process; each parameter counts once.
        backend, precision: as of `kernels.mf_loss_and_grads`.
        deterministic: also add the processes' sums in the order of the processes, whatever the order in which messages
            arrive; the same on every process.
        group: a `torch.distributed` process group, among whose processes users are divided; or a `DeviceMesh` of one
            dimension, likewise, or of two, users x items, unless its dimensions are named "items" and "users". None:
            the default group, or the mesh of the `DTensor`s.

    Returns:
        The loss, 0-d float64, and `Grads` with the parameters' shapes and dtypes. Gradients of what processes share are
        bitwise the same on each of them: do not sum them again. Of `DTensor`s, `DTensor`s: the loss `Replicate()`, the
        gradients with their parameters' placements.

    Raises:
        TypeError, ValueError: as `kernels.mf_loss_and_grads`, on this process alone, while the others wait for it; no
            process group is initialised, or it does not fit. On every process: parameters that processes share, `reg`
            or `deterministic` differ between them at the first step of a kind in a group.
        RuntimeError: the requested backend cannot run here, or a process ended before it had sent its sums.
    """
    return untraced_step(of) if is_dynamo_compiling() else _step(of)


@with_arguments(bundle_for_group)
def mf_loss(of: GroupCall) -> Tensor:
    """Return the loss of the whole problem as a differentiable scalar. Arguments and errors: `mf_loss_and_grads`.

    If a gradient is required, forward computes and sums all of them, and backward, which only scales them, exchanges
    nothing. Every process must require a gradient, or none.

    Returns:
        The loss, 0-d float64, with first derivatives in the five parameters.

    Raises:
        RuntimeError: also for a second derivative, in the backward pass.
    """
    return untraced_loss(of, True) if is_dynamo_compiling() else _loss(of, True)


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
    group: Any = None,
) -> Tensor:
    """Return the sum of squared, weighted errors of the whole problem, 0-d float64: `mf_loss` without regulariser.

    Forward only. Arguments and errors are those of `mf_loss_and_grads`.
    """
    of = bundle_for_group(
        user_factors, item_factors, user_bias, item_bias, global_bias, ratings, mask, 0.0,
        backend, precision, deterministic, group,
    )  # fmt: skip
    return untraced_loss(of, False) if is_dynamo_compiling() else _loss(of, False)


def _step(of: GroupCall) -> tuple[Tensor, Grads]:
    sharding = sharding_of(of)
    if sharding is None:
        return group_step(of)
    loss, grads = group_step(sharding.local(of))
    return sharding.replicated(loss), sharding.as_parameters(grads)


def _loss(of: GroupCall, differentiable: bool) -> Tensor:
    sharding = sharding_of(of)
    if sharding is None:
        return group_loss(of, differentiable)
    return sharding.replicated(group_loss(sharding.local(of), differentiable))


# For code that is being compiled, whose graph breaks here and goes on behind.
untraced_step: Callable[[GroupCall], tuple[Tensor, Grads]] = _disable_dynamo(_step)
untraced_loss: Callable[[GroupCall, bool], Tensor] = _disable_dynamo(_loss)
