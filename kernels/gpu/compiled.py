"""A step whose kernels are compiled: what remains for each call is to allocate, to fill in addresses and to launch."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from torch import Tensor

from kernels.gpu.calls import NO_GRADIENTS, OPERANDS, Plan, allocate, ratings_of
from kernels.gpu.workspace import Region
from kernels.problem import Grads, Problem


class CompiledStep:
    """The launches of a plan with everything filled in that does not change from call to call.

    Each kernel's arguments are picked from one list: operands by address, regions of the workspace, numbers.
    """

    def __init__(self, plan: Plan, kernels: Sequence[Any]) -> None:
        """Fill in a plan.

        Args:
            kernels: what Triton returned when it first launched each call.
        """
        self.plan = plan
        # Constants are compiled in: Triton's launcher skips their places.
        values = [[call.arguments.get(name) for name in call.kernel.arg_names] for call in plan.calls]
        flat = [value for each in values for value in each]
        self.offsets = [value.offset for value in flat if isinstance(value, Region)]
        self.numbers = [value for value in flat if not isinstance(value, (Region, str))]
        regions, numbers = iter(range(len(self.offsets))), iter(range(len(self.numbers)))

        def place(value: Any) -> int:
            if isinstance(value, str):
                return OPERANDS.index(value)
            if isinstance(value, Region):
                return len(OPERANDS) + next(regions)
            return len(OPERANDS) + len(self.offsets) + next(numbers)

        places = [[place(value) for value in each] for each in values]
        grids = [(*call.grid, 1) for call in plan.calls]
        self.launches = [
            (kernel[grid], itemgetter(*each)) for kernel, grid, each in zip(kernels, grids, places, strict=True)
        ]

    def __call__(self, problem: Problem, gradients: bool) -> tuple[Tensor, Grads | None]:
        """Enqueue the launches for a problem of the plan's layout, and return loss and gradients."""
        workspace, loss, grads = allocate(self.plan, problem, gradients)
        tensors = (*problem.parameters, *ratings_of(self.plan, problem), loss, *(grads or NO_GRADIENTS))
        start = workspace.data_ptr()
        values = [None if tensor is None else tensor.data_ptr() for tensor in tensors]
        values.append(float(problem.reg))
        values += [start + offset for offset in self.offsets]
        values += self.numbers
        for launch, pick in self.launches:
            launch(*pick(values))
        return loss, grads
