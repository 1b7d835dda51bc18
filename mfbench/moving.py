"""What is right while a step is timed: the global bias is another one in every evaluation, so none repeats the last.

All errors move by what the bias does. So the gradients are straight lines in it and the loss is a parabola, and what is
exact at two biases tells what is exact between them, at hardly any cost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mfbench.formulas import flat
from mfbench.gate import EAGER_FACTOR, OUTPUTS, Standard
from mfbench.projection import folded
from reference import oracle_loss_and_grads

WIDER = 4.0  # times the size of the terms at the lower bias, at most, is that at the upper one


class Moving(NamedTuple):
    """Exact values at two biases, and how far a sum over an output's entries may be off."""

    low: float
    high: float
    at_low: npt.NDArray[np.float64]  # [outputs, PERIOD], folded
    at_high: npt.NDArray[np.float64]
    bounds: npt.NDArray[np.float64]  # [outputs], of an entry, in units of its terms
    terms: npt.NDArray[np.float64]  # [outputs], the size of the terms of all entries

    @classmethod
    def of(cls, standard: Standard) -> Moving:
        """From the bias that the standard holds for to one that is higher by the size of the errors there."""
        inputs = standard.inputs
        step = math.sqrt(float(standard.exact[0]) / max(1, inputs.observed))
        low = float(inputs.global_bias)
        high = low + (step if math.isfinite(step) and step > 0 else 1.0)
        raised = inputs.global_bias.double() + (high - low)
        exact_at_high = flat(oracle_loss_and_grads(*inputs._replace(global_bias=raised)))
        terms = [WIDER * scale.sum() for scale in standard.scales]
        at_low, at_high = (np.stack(list(map(folded, values))) for values in (standard.exact, exact_at_high))
        return cls(low, high, at_low, at_high, np.array(standard.bounds), np.array(terms))

    def coarsened(self, eps: float) -> Moving:
        """For products whose unit of rounding is `eps`, if that is coarser."""
        return self._replace(bounds=np.maximum(self.bounds, EAGER_FACTOR * eps))

    def biases(self, count: int) -> list[float]:
        """Drawn between the two, as float32 has them."""
        drawn = np.random.default_rng().uniform(self.low, self.high, count).astype(np.float32)
        return [float(bias) for bias in drawn]

    def wrong_numbers(self, bias: float, loss: float, d_bias: float) -> list[str]:
        """Of the loss and the gradient of the bias, those that cannot be right at that bias."""
        exact = self._exact(bias)[[0, -1]].sum(axis=1)
        return _off(("loss", OUTPUTS[-1]), np.array([loss, d_bias]), exact, self.bounds[[0, -1]] * self.terms[[0, -1]])

    def wrong_projections(self, bias: float, signs: npt.NDArray[np.float64], found: Sequence[float]) -> list[str]:
        """Outputs whose sum of entries, with these signs before them, cannot be that of an output within its bound."""
        return _off(OUTPUTS, np.array(found), self._exact(bias) @ signs, self.bounds * self.terms)

    def _exact(self, bias: float) -> npt.NDArray[np.float64]:
        """Every output, folded."""
        step, at = self.high - self.low, (bias - self.low) / (self.high - self.low)
        exact = (1 - at) * self.at_low + at * self.at_high
        observed = (self.at_high[-1].sum() - self.at_low[-1].sum()) / (2 * step)  # d loss/d bias is 2 sum E
        exact[0, 0] -= at * (1 - at) * step**2 * observed
        return exact


def _off(
    names: Sequence[str], found: npt.NDArray[np.float64], exact: npt.NDArray[np.float64],
    allowed: npt.NDArray[np.float64],
) -> list[str]:  # fmt: skip
    with np.errstate(invalid="ignore"):
        right = ~np.isfinite(exact) | (np.abs(found - exact) <= allowed)
    return [name for name, fits in zip(names, right, strict=True) if not fits]
