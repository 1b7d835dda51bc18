"""The correctness gate: a result is right when it is about as near to the float64 oracle as eager PyTorch is.

Errors are taken entry by entry, relative to the size of the terms that the entry sums: the same formula evaluated
on absolute values (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1: |fl(x'y) - x'y| is bounded
by a multiple of eps * |x|'|y|). So a bound holds at any scale of the data, and a small row counts as a large one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mfbench.correctness import diagnosis, near_misses
from mfbench.correctness.near_misses import flat
from mfbench.problems.inputs import Inputs
from reference import autograd_loss_and_grads, oracle_loss_and_grads

OUTPUTS = ("loss", "user_factors", "item_factors", "user_bias", "item_bias", "global_bias")
EAGER_FACTOR = (
    2.0  # a result may be off by twice what eager PyTorch is off by, and by this where eager is nearly exact:
)
FLOOR = 8.0  # units of rounding, and
FLOOR_MAX, FLOOR_RMS = 0.5, 1 / 16  # so many times the square root of the number of terms: the probabilistic bound of
# Higham and Mary, A New Approach to Probabilistic Rounding Error Analysis (2019), for sums in any order
PRECISION_EPS = {"tf32": 2.0**-10, "bf16x3": 2.0**-15}  # units of rounding of products coarser than float32
EAGER_ELEMENTS = 1 << 24  # eager PyTorch evaluates at most so many ratings together: it needs some fifteen temporaries


class Correctness(NamedTuple):
    """One output against its bound, in units of the entry's own terms; `error` is inf where a NaN is out of place."""

    error: float  # largest over the entries
    bound: float
    rms_error: float
    rms_bound: float
    ok: bool
    hint: str = ""  # what is wrong, in terms of the formula, where that can be told

    @property
    def explanation(self) -> str:
        """The hint as the end of a sentence."""
        return f" (it {self.hint})" if self.hint else ""


def complaints(verdicts: Mapping[str, Correctness], flaws: Sequence[str]) -> list[str]:
    """What is wrong, in words: flaws of the form, which may be the cause, then the outputs that are off."""
    misshapen = {flaw.partition(" has shape ")[0] for flaw in flaws}
    return list(flaws) + [
        f"{output} is off by {verdict.error:.2g}, allowed {verdict.bound:.2g}{verdict.explanation}"
        for output, verdict in verdicts.items()
        if not verdict.ok and output not in misshapen
    ]


class Standard(NamedTuple):
    """What the outputs of one set of inputs are held against: exact values, scales of their terms, bounds."""

    exact: list[np.ndarray]
    scales: list[np.ndarray]
    bounds: list[float]
    rms_bounds: list[float]
    inputs: Inputs  # where all this holds

    def judge(self, outputs: Sequence[np.ndarray]) -> dict[str, Correctness]:
        """Every output (loss first, then the gradients in parameter order) against its bound."""
        verdicts = {}
        for name, output, exact, scale, bound, rms_bound in zip(OUTPUTS, outputs, *self[:4], strict=True):
            error, rms_error = _errors(np.asarray(output, dtype=np.float64), exact, scale)
            ok = error <= bound and rms_error <= rms_bound
            verdicts[name] = Correctness(error, bound, rms_error, rms_bound, ok)
        if all(verdict.ok for verdict in verdicts.values()):
            return verdicts
        return self._explained(verdicts, outputs)

    def _explained(self, verdicts: dict[str, Correctness], outputs: Sequence[np.ndarray]) -> dict[str, Correctness]:
        wrong = near_misses.wrong(self.inputs)
        penalties = near_misses.penalties(self.inputs)
        found: dict[str, Correctness] = {}
        told = ""
        for place, (name, verdict) in enumerate(verdicts.items()):
            variants = {what: values[place] for what, values in wrong.items()}
            exact = diagnosis.Exact(
                self.exact[place], self.scales[place], verdict.bound, penalties[place], variants
            )  # fmt: skip
            got = np.asarray(outputs[place], dtype=np.float64)
            hint = "" if verdict.ok else diagnosis.explain(name, got, exact)
            found[name] = verdict._replace(hint="does so too" if hint and hint == told else hint)
            told = hint or told
        return found

    def coarsened(self, eps: float) -> Standard:
        """The same values with the bounds of products whose unit of rounding is `eps`, if that is coarser."""
        if not eps:
            return self
        bounds, rms_bounds = (
            [max(bound, EAGER_FACTOR * eps) for bound in bounds] for bounds in (self.bounds, self.rms_bounds)
        )
        return self._replace(bounds=bounds, rms_bounds=rms_bounds)

    def moved_to(self, inputs: Inputs) -> Standard:
        """The same bounds for other parameters of the same kind."""
        exact = flat(oracle_loss_and_grads(*inputs))
        return self._replace(exact=exact, scales=_scales(inputs, exact), inputs=inputs)


def standard(inputs: Inputs) -> Standard:
    """The oracle's values for the arguments of a provider, and bounds from eager PyTorch's own errors there."""
    exact = flat(oracle_loss_and_grads(*inputs))
    scales = _scales(inputs, exact)
    eager = [_errors(value, *pair) for value, *pair in zip(_eager(inputs), exact, scales, strict=True)]
    eps = torch.finfo(inputs.user_factors.dtype).eps
    terms = math.sqrt(max(inputs.ratings.shape))
    bounds = [EAGER_FACTOR * error + eps * (FLOOR + FLOOR_MAX * terms) for error, _ in eager]
    rms_bounds = [EAGER_FACTOR * rms + eps * (FLOOR + FLOOR_RMS * terms) for _, rms in eager]
    return Standard(exact, scales, bounds, rms_bounds, inputs)


def _scales(inputs: Inputs, exact: list[np.ndarray]) -> list[np.ndarray]:
    """Sums of the absolute values of every output's terms."""
    magnitudes = inputs._replace(
        **{name: getattr(inputs, name).abs() for name in Inputs._fields[:5]},
        ratings=-inputs.ratings.to(torch.float64).abs(),
        reg=abs(inputs.reg),
    )
    loss, *gradients = flat(oracle_loss_and_grads(*magnitudes))
    # the loss sums e^2, and an error of eps * s in e moves e^2 by 2 e s eps: by Cauchy-Schwarz at most 2 eps |e| |s|
    return [np.sqrt(np.abs(exact[0] * loss)), *gradients]


def _errors(output: np.ndarray, exact: np.ndarray, scale: np.ndarray) -> tuple[float, float]:
    """Largest and rms error in units of `scale`; inf where NaN or Inf do not stand where the exact result has them."""
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


def _eager(inputs: Inputs) -> list[np.ndarray]:
    """Eager PyTorch's result; a matrix that its temporaries might not fit beside is evaluated in blocks of users."""
    m, n = inputs.ratings.shape
    rows = max(1, EAGER_ELEMENTS // max(1, n))
    if rows >= m:
        return flat(_on_cpu(autograd_loss_and_grads(*inputs)))
    loss = torch.zeros((), dtype=torch.float64)
    user_grads: list[tuple[Tensor, Tensor]] = []
    item_grads = [torch.zeros_like(p) for p in (inputs.item_factors, inputs.item_bias, inputs.global_bias)]
    for i in range(0, m, rows):
        users = slice(i, i + rows)
        block = inputs._replace(
            user_factors=inputs.user_factors[users],
            user_bias=inputs.user_bias[users],
            ratings=inputs.ratings[users],
            mask=None if inputs.mask is None else inputs.mask[users],
            reg=0.0,
        )
        block_loss, (dP, dQ, dbu, dbi, dmu) = autograd_loss_and_grads(*block)
        loss += block_loss
        user_grads.append((dP, dbu))
        item_grads = [total + part for total, part in zip(item_grads, (dQ, dbi, dmu), strict=True)]
    dP, dbu = (torch.cat(blocks) for blocks in zip(*user_grads, strict=True))
    dQ, dbi, dmu = item_grads
    penalised = inputs[:4]  # factors and biases, in parameter order
    loss += inputs.reg * sum(parameter.double().square().sum() for parameter in penalised)
    grads = [grad + 2 * inputs.reg * parameter for grad, parameter in zip((dP, dQ, dbu, dbi), penalised, strict=True)]
    return flat(_on_cpu((loss, (*grads, dmu))))


def _on_cpu(result: tuple[Tensor, Sequence[Tensor]]) -> tuple[Tensor, list[Tensor]]:
    loss, grads = result
    return loss.detach().cpu(), [grad.detach().cpu() for grad in grads]
