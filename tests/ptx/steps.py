"""The fused step as compiled for a target: execution of its launches on the CPU, and bounds on the result's error."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from kernels.aot import Launch, StepPlan, plan_step
from kernels.gpu.version import is_old
from reference import oracle_loss_and_grads

from .machine import run
from .races import Race

PASSES = ("fused_step", "chunked_step", "sparse_step")
OUTPUTS = ("loss", "user_factors", "item_factors", "user_bias", "item_bias", "global_bias")

# Relative error of one product of two float32 operands. tf32: the tensor core drops 13 bits of each, less than 2**-10
# of it. Operands split in two lose the product of their low parts and those parts' own rounding: a few times the square
# of 2**-10 (tf32x3) or of 2**-8 (bf16x3). ieee: a rounding like those of the sums.
PRODUCT_ERROR = {"ieee": 0.0, "tf32": 2.0**-9, "tf32x3": 2.0**-18, "bf16x3": 2.0**-14}


@dataclasses.dataclass
class Problem:
    """Arguments of the step, and the same ratings and mask as plain tensors for the oracle."""

    parameters: list[torch.Tensor]
    ratings: Any  # as the step gets them, an encoding among them
    mask: torch.Tensor | None
    plain_ratings: torch.Tensor  # (m, n); holds anything where the weight is 0
    weights: torch.Tensor  # (m, n) float64; 0 and 1 of a mask without weights
    reg: float = 0.1

    def plan(self, target: str, precision: str, deterministic: bool = False) -> StepPlan:
        """Compile the step. What an older Triton cannot compile skips the test."""
        try:
            with poisoned_buffers():
                return plan_step(*self.parameters, self.ratings, self.mask, self.reg, precision, deterministic, target)
        except ValueError as error:
            if is_old() and str(error).startswith("not shipped"):
                pytest.skip(str(error))
            raise

    def errors(self, plan: StepPlan, precision: str) -> dict[str, float]:
        """For each output, the largest error over its bound; inf where it is NaN."""
        loss, grads = plan.result()
        exact_loss, exact = oracle_loss_and_grads(*self.parameters, self.plain_ratings, self.weights, self.reg)
        allowed = self._bounds(PRODUCT_ERROR[precision])
        ratios = {}
        for name, value, target, bound in zip(OUTPUTS, (loss, *grads), (exact_loss, *exact), allowed, strict=True):
            ratio = np.abs(value.detach().double().numpy() - target) / (np.reshape(bound, np.shape(target)) + 1e-300)
            ratios[name] = float(np.where(np.isnan(ratio), np.inf, ratio).max())
        return ratios

    def _bounds(self, product: float) -> tuple[np.ndarray, ...]:
        """Worst case, entry by entry, to first order: error of each product, and a rounding for each term of a sum."""
        P, Q, bu, bi, mu = (parameter.detach().double().numpy() for parameter in self.parameters)
        bu, bi, (m, rank), n = bu.reshape(-1, 1), bi.reshape(1, -1), P.shape, Q.shape[0]
        eps = 2.0**-53 if self.parameters[0].dtype == torch.float64 else 2.0**-24
        product = 0.0 if self.parameters[0].dtype == torch.float64 else product
        W, R = self.weights.numpy(), np.where(self.weights == 0, 0, self.plain_ratings.double().numpy())
        E = W * (P @ Q.T + bu + bi + mu - R)
        terms = np.abs(P) @ np.abs(Q).T + np.abs(bu) + np.abs(bi) + np.abs(mu) + np.abs(R)
        E_error = (product + (rank + 7) * eps) * np.abs(W) * terms
        row_unit, column_unit = product + (n + 6) * eps, product + (m + 6) * eps
        rows, columns = (np.abs(W) * (E_error + unit * np.abs(E)) for unit in (row_unit, column_unit))
        bu_error, bi_error = 2 * rows.sum(1), 2 * columns.sum(0)
        sse_error = (2 * np.abs(E) * E_error + E_error**2 + (m + n) * eps * E**2).sum()
        norms = self.reg * sum(np.square(x).sum() for x in (P, Q, bu, bi))
        reg = 8 * eps * self.reg
        return (
            sse_error + 64 * eps * norms,
            2 * rows @ np.abs(Q) + reg * np.abs(P),
            2 * columns.T @ np.abs(P) + reg * np.abs(Q),
            bu_error + reg * np.abs(bu[:, 0]),
            bi_error + reg * np.abs(bi[0]),
            bu_error.sum() + 8 * eps * np.abs(2 * (W * E).sum()),
        )


@contextmanager
def poisoned_buffers() -> Iterator[None]:
    """Fill new buffers with NaN."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def the_pass(plan: StepPlan) -> Launch:
    """Return the launch that reads the ratings."""
    return next(launch for launch in plan.launches if launch.name in PASSES)


Order = Callable[[int], Iterable[int]]  # number of blocks -> their order


def execute(plan: StepPlan, order: Order | None = None, **options: Any) -> list[Race]:
    """Run the launches of a plan and return all races."""
    return [race for launch in plan.launches for race in execute_launch(launch, order=order, **options)]


def execute_launch(launch: Launch, ptx: str | None = None, order: Order | None = None, **options: Any) -> list[Race]:
    """Run one launch, or a modified text of it, and return its races."""
    assert launch.ptx is not None
    blocks = launch.grid[0] * launch.grid[1] * launch.grid[2]
    options["order"] = None if order is None else order(blocks)
    arguments = launch.grid, launch.num_warps, launch.shared_bytes, launch.args
    return run(ptx or launch.ptx, launch.name, *arguments, **options).races
