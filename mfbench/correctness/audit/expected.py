"""What is right while a step is timed: the global bias is another one in every evaluation, so none repeats the last.

All errors move by what the bias does. So the gradients are straight lines in it and the loss is a parabola, and what is
exact at two biases tells what is exact between them, at hardly any cost.
"""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mfbench.correctness.audit.projection import folded
from mfbench.correctness.gate import OUTPUTS, Standard
from mfbench.correctness.near_misses import flat
from reference import oracle_loss_and_grads

WIDER = 4.0  # times the size of the terms at the lower bias, at most, is that at the upper one


class Moving(NamedTuple):
    """Exact values at two biases, and how far a sum over an output's entries may be off."""

    standard: Standard  # at the lower one
    low: float
    high: float
    at_low: npt.NDArray[np.float64]  # [outputs, PERIOD], folded
    at_high: npt.NDArray[np.float64]
    bend: float  # of the loss's parabola, which lies below its chord by so much times t (1 - t)
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
        at_low, at_high = (np.stack(list(map(folded, values))) for values in (standard.exact, exact_at_high))
        bend = (at_high[-1, 0] - at_low[-1, 0]) * (high - low) / 2  # d loss / d bias is twice the sum of the errors
        terms = np.array([WIDER * scale.sum() for scale in standard.scales])
        return cls(standard, low, high, at_low, at_high, bend, terms)

    @property
    def allowed(self) -> npt.NDArray[np.float64]:
        """[outputs]"""
        return np.array(self.standard.bounds) * self.terms

    def coarsened(self, eps: float) -> Moving:
        """As the standard's own."""
        return self._replace(standard=self.standard.coarsened(eps))

    def biases(self, count: int) -> list[float]:
        """Drawn between the two, as float32 has them."""
        return array("f", (random.uniform(self.low, self.high) for _ in range(count))).tolist()

    def wrong_numbers(self, bias: float, loss: float, d_bias: float) -> list[str]:
        """Of the loss and the gradient of the bias, those that cannot be right at that bias."""
        at, allowed = self._part(bias), self.allowed
        exact = (1 - at) * self.at_low[:, 0] + at * self.at_high[:, 0]  # of outputs with one entry: that entry
        exact[0] -= at * (1 - at) * self.bend
        found = ((0, loss), (-1, d_bias))
        return [OUTPUTS[output] for output, value in found if _wrong(value, exact[output], allowed[output])]

    def wrong_projections(self, bias: float, signs: npt.NDArray[np.float64], found: Sequence[float]) -> list[str]:
        """Outputs whose sum of entries, with these signs before them, cannot be that of an output within its bound."""
        at = self._part(bias)
        exact = (1 - at) * (self.at_low @ signs) + at * (self.at_high @ signs)
        exact[0] -= at * (1 - at) * self.bend * signs[0]
        return [name for name, *numbers in zip(OUTPUTS, found, exact, self.allowed, strict=True) if _wrong(*numbers)]

    def _part(self, bias: float) -> float:
        """Of the way from low to high."""
        return (bias - self.low) / (self.high - self.low)


def _wrong(value: float, exact: float, allowed: float) -> bool:
    return math.isfinite(exact) and not abs(value - exact) <= allowed
