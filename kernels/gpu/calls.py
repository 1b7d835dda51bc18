"""The launches of a step: their kernels, grids and arguments by name, and what binds the names to tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kernels.gpu.workspace import Region
from kernels.item_order import by_item
from kernels.problem import Grads, Problem, empty_gradient

ELEMENTS = 1024  # of a factor that a program of `prepare` or `finish` holds at a time
OPTIONS = {"enable_fp_fusion": True}  # of every kernel, set explicitly: the default depends on Triton's version
BESIDE = {"num_warps": 8, "num_stages": 1}  # options of `prepare` and `finish`
PARAMETERS = Grads._fields
NO_GRADIENTS = (None,) * len(PARAMETERS)
GRADIENTS = tuple(f"d_{name}" for name in PARAMETERS)
RATINGS = ("ratings", "mask", "levels", "occupied", "rows", "columns")
BY_ITEM = ("item_ratings", "item_rows", "item_columns")  # sparse ratings in the order of items
OPERANDS = (*PARAMETERS, *RATINGS, *BY_ITEM, "loss", *GRADIENTS, "reg")


class KernelCall(NamedTuple):
    """One launch: the kernel, its grid, and its arguments by name."""

    kernel: Any
    grid: tuple[int, int]
    arguments: dict[str, Any]  # numbers; tensors, or in a `Plan` names of operands and regions; None is compiled away
    constants: dict[str, Any]
    options: dict[str, Any]  # of the compiler


class Plan(NamedTuple):
    """The launches of every problem with one layout: their tensors are named, not given."""

    calls: tuple[KernelCall, ...]
    workspace_bytes: int
    by_item: bool = False  # sparse ratings are also read in the order of items


class LaunchPlan(NamedTuple):
    """The launches of one step, in order, and the function that returns its result once they have run."""

    calls: list[KernelCall]
    result: Callable[[], tuple[Tensor, Grads | None]]


def bind(plan: Plan, problem: Problem, gradients: bool) -> LaunchPlan:
    """Return the launches of a plan with the problem's tensors and with new ones for workspace and results."""
    workspace, loss, grads = allocate(plan, problem, gradients)
    ratings = (t.view(torch.uint8) if t is not None and t.dtype == torch.bool else t for t in ratings_of(plan, problem))
    values = (*problem.parameters, *ratings, loss, *(grads or NO_GRADIENTS), float(problem.reg))
    operands = dict(zip(OPERANDS, values, strict=True))

    def bound(value: Any) -> Any:
        if isinstance(value, Region):
            return value.of(workspace)
        value = operands[value] if isinstance(value, str) else value
        return value.detach() if isinstance(value, Tensor) else value

    calls = [call._replace(arguments={name: bound(v) for name, v in call.arguments.items()}) for call in plan.calls]
    return LaunchPlan(calls, lambda: (loss, grads))


def ratings_of(plan: Plan, problem: Problem) -> tuple[Tensor | None, ...]:
    """Return the operands `RATINGS` and `BY_ITEM`."""
    ratings, mask, levels, _, occupied, rows, columns, _ = problem.observations
    if not plan.by_item:
        return ratings, mask, levels, occupied, rows, columns, None, None, None
    other = by_item(problem.observations)
    return ratings, mask, levels, occupied, rows, columns, other.ratings, other.rows, other.columns


def allocate(plan: Plan, problem: Problem, gradients: bool) -> tuple[Tensor, Tensor, Grads | None]:
    """Return new memory for the workspace, the loss and, if requested, the gradients."""
    P = problem.parameters[0]
    dtype, device = P.dtype, P.device
    workspace = torch.empty(plan.workspace_bytes // dtype.itemsize, dtype=dtype, device=device)
    loss = torch.empty((), dtype=torch.float64, device=device)
    if not gradients:
        return workspace, loss, None
    return workspace, loss, Grads._make(map(empty_gradient, problem.parameters))


def parameter_arguments(problem: Problem) -> dict[str, Any]:
    """Return the arguments that `prepare` and `finish` share."""
    P, Q, bu, bi, _ = problem.parameters
    m, n, rank = problem.shape
    return {
        "p_ptr": "user_factors", "q_ptr": "item_factors", "bu_ptr": "user_bias", "bi_ptr": "item_bias",
        "reg": "reg", "M": m, "N": n, "rank": rank,
        "stride_pm": P.stride(0), "stride_pk": P.stride(1), "stride_qn": Q.stride(0), "stride_qk": Q.stride(1),
        "stride_bu": bu.stride(0), "stride_bi": bi.stride(0),
    }  # fmt: skip
