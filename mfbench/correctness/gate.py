"""The correctness gate: accept outputs about as close to the float64 oracle as eager PyTorch's.

Errors are measured entry by entry, relative to the magnitude of the terms each entry sums, which is the same formula
evaluated on absolute values (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1: |fl(x'y) - x'y| is
bounded by a multiple of eps * |x|'|y|). Bounds therefore hold at any scale of the data, and small rows count as much
as large ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from kernels.precision import full_float32
from mfbench.correctness import diagnosis
from mfbench.correctness.near_misses import near_misses, penalties, to_arrays
from mfbench.problems import matrices
from mfbench.problems.inputs import Inputs
from mfbench.providers.outputs import OUTPUTS
from mfbench.results.codes import Code, Finding
from reference import autograd_loss_and_grads, oracle_loss_and_grads
from reference.oracle import BLOCK_ELEMENTS

EAGER_FACTOR = 2.0  # allowed error as a multiple of eager PyTorch's
# An allowance on top, in units of rounding, for problems on which eager PyTorch happens to be nearly exact: a constant,
# plus a multiple of sqrt(number of terms) for the largest and for the rms error. This is the probabilistic bound for
# sums in any order of Higham and Mary, A New Approach to Probabilistic Rounding Error Analysis (2019).
FLOOR = 8.0
FLOOR_MAX, FLOOR_RMS = 0.5, 1 / 16
PRECISION_EPS = {"tf32": 2.0**-10, "bf16x3": 2.0**-15}  # unit of rounding of products coarser than float32
EAGER_ELEMENTS = 1 << 24  # most places of a matrix that eager PyTorch evaluates at once, with about fifteen temporaries


Oracle = Callable[..., tuple[Any, Sequence[Any]]]  # arguments as `Inputs`; float64 loss and gradients on the CPU


class OutputCheck(NamedTuple):
    """One output against its bound. Errors are in units of the entries' own terms, inf for a misplaced NaN or Inf."""

    error: float  # largest over the entries
    bound: float
    rms_error: float
    rms_bound: float
    code: Code | None = None  # None: within both bounds
    hint: str = ""  # what is wrong in terms of the formula, if that could be found out

    @property
    def ok(self) -> bool:
        """Return whether the output is within its bounds."""
        return self.code is None


def findings(checks: Mapping[str, OutputCheck], flaws: Sequence[Finding]) -> list[Finding]:
    """Return everything that is wrong: first the flaws of form, which may be the cause, then outputs off their bound.

    Args:
        checks: by output.
        flaws: from `mfbench.providers.outputs`.
    """
    misshapen = {flaw.output for flaw in flaws if flaw.code is Code.BAD_SHAPE}
    found = list(flaws)
    for output, check in checks.items():
        if check.code is not None and output not in misshapen:
            hint = f" (it {check.hint})" if check.hint else ""
            message = f"{output} is off by {check.error:.2g}, allowed {check.bound:.2g}{hint}"
            found.append(Finding(check.code, message, output))
    return found


class Standard(NamedTuple):
    """Exact outputs for one set of inputs, the magnitude of their terms, and the allowed errors."""

    exact: list[np.ndarray]
    scales: list[np.ndarray]
    bounds: list[float]
    rms_bounds: list[float]
    inputs: Inputs  # on the CPU

    def judge(self, outputs: Sequence[np.ndarray]) -> dict[str, OutputCheck]:
        """Check every output against its bound.

        Args:
            outputs: float64, loss first, then the gradients in parameter order.
        """
        checks = {}
        for name, output, exact, scale, bound, rms_bound in zip(OUTPUTS, outputs, *self[:4], strict=True):
            output = np.asarray(output, dtype=np.float64)
            error, rms_error = _errors(output, exact, scale)
            code = None if error <= bound and rms_error <= rms_bound else _code(output, exact)
            checks[name] = OutputCheck(error, bound, rms_error, rms_bound, code)
        if all(check.ok for check in checks.values()):
            return checks
        return self._explained(checks, outputs)

    def _explained(self, checks: dict[str, OutputCheck], outputs: Sequence[np.ndarray]) -> dict[str, OutputCheck]:
        mistakes = near_misses(self.inputs)
        penalty = penalties(self.inputs)
        found: dict[str, OutputCheck] = {}
        previous = ""
        for place, (name, check) in enumerate(checks.items()):
            variants = {what: values[place] for what, values in mistakes.items()}
            exact = diagnosis.Exact(self.exact[place], self.scales[place], check.bound, penalty[place], variants)
            got = np.asarray(outputs[place], dtype=np.float64)
            hint = "" if check.ok else diagnosis.explain(name, got, exact)
            found[name] = check._replace(hint="has the same error" if hint and hint == previous else hint)
            previous = hint or previous
        return found

    def coarsened(self, eps: float) -> Standard:
        """Return the standard with bounds wide enough for products rounded to `eps`; 0 leaves them alone."""
        if not eps:
            return self
        bounds, rms_bounds = (
            [max(bound, EAGER_FACTOR * eps) for bound in bounds] for bounds in (self.bounds, self.rms_bounds)
        )
        return self._replace(bounds=bounds, rms_bounds=rms_bounds)

    def at(self, inputs: Inputs, oracle: Oracle = oracle_loss_and_grads) -> Standard:
        """Return the standard with the same bounds for other parameters from the same distribution."""
        exact = to_arrays(oracle(*inputs))
        return self._replace(exact=exact, scales=_scales(inputs, exact, oracle), inputs=inputs)


def standard(inputs: Inputs, oracle: Oracle = oracle_loss_and_grads) -> Standard:
    """Evaluate the oracle on inputs, and derive bounds from the errors of eager PyTorch on the same inputs.

    Args:
        inputs: on the CPU.
        oracle: the float64 step; another than NumPy's is faster on a large problem.
    """
    exact = to_arrays(oracle(*inputs))
    scales = _scales(inputs, exact, oracle)
    eager = [_errors(value, *pair) for value, *pair in zip(_eager(inputs), exact, scales, strict=True)]
    eps = torch.finfo(inputs.user_factors.dtype).eps
    terms = math.sqrt(max(inputs.ratings.shape))
    bounds = [EAGER_FACTOR * error + eps * (FLOOR + FLOOR_MAX * terms) for error, _ in eager]
    rms_bounds = [EAGER_FACTOR * rms + eps * (FLOOR + FLOOR_RMS * terms) for _, rms in eager]
    return Standard(exact, scales, bounds, rms_bounds, inputs)


def _scales(inputs: Inputs, exact: list[np.ndarray], oracle: Oracle) -> list[np.ndarray]:
    """Return the sum of the absolute values of the terms of every entry of every output."""
    magnitudes = inputs._replace(
        **{name: getattr(inputs, name).abs() for name in Inputs._fields[:5]}, reg=abs(inputs.reg)
    )
    loss, dP, dQ, dbu, dbi, dmu = penalties(magnitudes)
    dmu = np.zeros_like(dmu)  # the global bias is not regularised
    for users in inputs.user_blocks(BLOCK_ELEMENTS):
        block = magnitudes.of_users(users)
        values = matrices.parts(block.ratings)[-1]
        negative = -values.double().abs()
        ratings = matrices.with_values(block.ratings, negative) if block.sparse else negative
        block = block._replace(ratings=ratings, mask=_magnitude(block.mask), reg=0.0)
        block_loss, (block_dP, block_dQ, block_dbu, block_dbi, block_dmu) = oracle(*block)
        dP[users] += block_dP
        dbu[users] += block_dbu
        loss, dQ, dbi, dmu = loss + block_loss, dQ + block_dQ, dbi + block_dbi, dmu + block_dmu
    # The loss sums e^2. An error of eps * s in e changes e^2 by 2 e s eps; by Cauchy-Schwarz, the sum is at most
    # 2 eps |e| |s|.
    return [np.sqrt(np.abs(exact[0] * loss)), dP, dQ, dbu, dbi, dmu]


def _magnitude(mask: Tensor | None) -> Tensor | None:
    return mask.double().abs() if mask is not None and mask.is_floating_point() else mask


def _errors(output: np.ndarray, exact: np.ndarray, scale: np.ndarray) -> tuple[float, float]:
    """Return the largest and the rms error in units of `scale`; inf for a wrong shape or a misplaced NaN or Inf."""
    if output.shape != exact.shape:
        return math.inf, math.inf
    finite = np.isfinite(exact) & np.isfinite(scale)
    same = np.array_equal(output[~finite], exact[~finite], equal_nan=True)
    if not same or not np.isfinite(output[finite]).all():
        return math.inf, math.inf
    difference, scale = np.abs(output - exact)[finite], scale[finite]
    relative = np.divide(difference, scale, out=np.where(difference > 0, np.inf, 0.0), where=scale > 0)
    if relative.size == 0:
        return 0.0, 0.0
    return float(relative.max()), float(np.sqrt(np.mean(relative**2)))


def _code(output: np.ndarray, exact: np.ndarray) -> Code:
    """Return what kind of failure it is, for an output that is off its bound."""
    if output.shape != exact.shape:
        return Code.BAD_SHAPE
    return Code.OFF_BOUND if np.array_equal(np.isfinite(output), np.isfinite(exact)) else Code.NOT_FINITE


def _eager(inputs: Inputs) -> list[np.ndarray]:
    """Evaluate with eager PyTorch in full precision, in blocks of users if the matrix is large, to bound memory."""
    with full_float32("cpu", "cuda"), torch.autocast(inputs.user_factors.device.type, enabled=False):
        return _eager_in_blocks(inputs)


def _eager_in_blocks(inputs: Inputs) -> list[np.ndarray]:
    blocks = list(inputs.user_blocks(eager_elements(inputs)))
    if len(blocks) <= 1:
        return to_arrays(_on_cpu(autograd_loss_and_grads(*inputs)))
    loss = torch.zeros((), dtype=torch.float64, device="cpu")
    user_grads: list[tuple[Tensor, Tensor]] = []
    item_grads = [torch.zeros_like(p) for p in (inputs.item_factors, inputs.item_bias, inputs.global_bias)]
    for users in blocks:
        block = inputs.of_users(users)._replace(reg=0.0)
        block_loss, (dP, dQ, dbu, dbi, dmu) = autograd_loss_and_grads(*block)
        loss += block_loss
        user_grads.append((dP, dbu))
        item_grads = [total + part for total, part in zip(item_grads, (dQ, dbi, dmu), strict=True)]
    dP, dbu = (torch.cat(parts) for parts in zip(*user_grads, strict=True))
    dQ, dbi, dmu = item_grads
    penalised = inputs[:4]  # factors and biases, in parameter order
    loss += inputs.reg * sum(parameter.double().square().sum() for parameter in penalised)
    grads = [grad + 2 * inputs.reg * parameter for grad, parameter in zip((dP, dQ, dbu, dbi), penalised, strict=True)]
    return to_arrays(_on_cpu((loss, (*grads, dmu))))


def eager_elements(inputs: Inputs) -> int:
    """Return how many places, or sparse ratings, each with a row of both factors, are evaluated at once."""
    return max(1, EAGER_ELEMENTS // max(1, inputs.user_factors.shape[1])) if inputs.sparse else EAGER_ELEMENTS


def _on_cpu(result: tuple[Tensor, Sequence[Tensor]]) -> tuple[Tensor, list[Tensor]]:
    loss, grads = result
    return loss.detach().cpu(), [grad.detach().cpu() for grad in grads]
