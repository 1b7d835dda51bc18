"""Model the DRAM traffic of a whole step from its launch plan."""

from __future__ import annotations

from torch import Tensor

from kernels.gpu.config import TARGETS
from kernels.problem import Problem


def traffic(problem: Problem, target: str, precision: str, deterministic: bool) -> float:
    """Return the bytes that a step moves to and from DRAM / the bytes of its ratings and mask.

    The model assumes that every launch reads or writes each of its buffers once, so item factors and their gradients
    stay in the cache.

    Args:
        problem: its tensors may be on the device `meta`.
        target: such as "sm_90".
        precision: of the products.
        deterministic: bitwise repeatable.
    """
    from kernels.gpu.plan import plan_launches  # needs triton

    plan = plan_launches(problem, TARGETS[target], precision, deterministic, gradients=True)
    moved = sum(_bytes(value) for call in plan.calls for value in call.arguments.values())
    return moved / (_bytes(problem.observations.ratings) + _bytes(problem.observations.mask))


def _bytes(value: object) -> int:
    return value.numel() * value.element_size() if isinstance(value, Tensor) else 0
