"""Expected outputs during timing. The global bias changes on every call, so cached results are detected.

Every error changes by as much as the bias does, so each gradient is a linear function of the bias and the loss a
parabola. The oracle at two biases therefore gives the exact outputs at any bias between them at almost no cost.
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
from mfbench.correctness.gate import Standard
from mfbench.correctness.near_misses import to_arrays
from mfbench.problems.inputs import Inputs, row_blocks
from mfbench.providers.outputs import OUTPUTS
from reference import oracle_loss_and_grads

SCALE_GROWTH = 4.0  # upper bound on the ratio of term magnitudes at the high and the low bias


class ExpectedOutputs(NamedTuple):
    """Exact outputs at two biases, and the tolerance of a signed sum over an output's entries."""

    standard: Standard  # at the low bias
    low: float
    high: float
    at_low: npt.NDArray[np.float64]  # (outputs, PERIOD), folded
    at_high: npt.NDArray[np.float64]  # (outputs, PERIOD), folded
    curvature: float  # the loss lies below its chord by curvature * t * (1 - t), t from 0 at `low` to 1 at `high`
    magnitudes: npt.NDArray[np.float64]  # (outputs,), sums of the term magnitudes of all entries

    @classmethod
    def of(cls, standard: Standard) -> ExpectedOutputs:
        """Evaluate the oracle at a second bias, higher than the standard's by the rms error of its predictions."""
        inputs = standard.inputs
        rms_error = math.sqrt(float(standard.exact[0]) / (_sum_of_squared_weights(inputs) or 1))
        low = float(inputs.global_bias)
        high = low + (rms_error if math.isfinite(rms_error) and rms_error > 0 else 1.0)
        raised = inputs.global_bias.double() + (high - low)
        exact_at_high = to_arrays(oracle_loss_and_grads(*inputs._replace(global_bias=raised)))
        at_low, at_high = (np.stack(list(map(folded, values))) for values in (standard.exact, exact_at_high))
        curvature = (at_high[-1, 0] - at_low[-1, 0]) * (high - low) / 2  # d loss / d bias is twice the sum of errors
        magnitudes = np.array([SCALE_GROWTH * scale.sum() for scale in standard.scales])
        return cls(standard, low, high, at_low, at_high, curvature, magnitudes)

    @property
    def tolerances(self) -> npt.NDArray[np.float64]:
        """Return the largest allowed difference of a signed sum from its exact value, shape (outputs,)."""
        return np.array(self.standard.bounds) * self.magnitudes

    def coarsened(self, eps: float) -> ExpectedOutputs:
        """Return the same with bounds wide enough for products rounded to `eps`; 0 leaves them alone."""
        return self._replace(standard=self.standard.coarsened(eps))

    def biases(self, count: int) -> list[float]:
        """Draw biases between `low` and `high`, rounded to float32."""
        return array("f", (random.uniform(self.low, self.high) for _ in range(count))).tolist()

    def wrong_numbers(self, bias: float, loss: float, d_bias: float) -> list[str]:
        """Return which of the loss and the global bias's gradient are off at that bias."""
        at, tolerances = self._fraction(bias), self.tolerances
        exact = (1 - at) * self.at_low[:, 0] + at * self.at_high[:, 0]  # the entry itself for single-entry outputs
        exact[0] -= at * (1 - at) * self.curvature
        found = ((0, loss), (-1, d_bias))
        return [OUTPUTS[output] for output, value in found if _off(value, exact[output], tolerances[output])]

    def wrong_projections(self, bias: float, signs: npt.NDArray[np.float64], found: Sequence[float]) -> list[str]:
        """Return the outputs whose signed sum cannot belong to an output within its bound.

        Args:
            bias: of the evaluation.
            signs: (PERIOD,).
            found: the signed sum of every output.
        """
        at = self._fraction(bias)
        exact = (1 - at) * (self.at_low @ signs) + at * (self.at_high @ signs)
        exact[0] -= at * (1 - at) * self.curvature * signs[0]
        return [name for name, *numbers in zip(OUTPUTS, found, exact, self.tolerances, strict=True) if _off(*numbers)]

    def _fraction(self, bias: float) -> float:
        """Return where the bias lies, from 0 at `low` to 1 at `high`."""
        return (bias - self.low) / (self.high - self.low)


def _sum_of_squared_weights(inputs: Inputs) -> float:
    if inputs.mask is None or not inputs.weighted:
        return inputs.observed
    return sum(float(block.double().square().sum()) for block in row_blocks(inputs.mask))


def _off(value: float, exact: float, tolerance: float) -> bool:
    return math.isfinite(exact) and not abs(value - exact) <= tolerance
