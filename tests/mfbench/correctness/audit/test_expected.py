"""Expected outputs at any bias: they match the oracle, honest outputs pass and wrong ones are detected."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mfbench.correctness import gate
from mfbench.correctness.audit.expected import ExpectedOutputs
from mfbench.correctness.audit.projection import PERIOD, folded, new_bits, project, signs
from mfbench.correctness.near_misses import to_arrays
from mfbench.problems.cases import Case
from mfbench.problems.inputs import Inputs, draw
from mfbench.providers.outputs import OUTPUTS
from reference import autograd_loss_and_grads, oracle_loss_and_grads

SIGNS = signs(new_bits())


def inputs_of(density: float = 0.6, scale: float = 1.0, mask: str = "uint8") -> Inputs:
    inputs = draw(Case(suite="t", m=70, n=130, rank=40, density=density, ratings_dtype="float32", mask=mask,
                       data="synthetic", seed=3))  # fmt: skip
    if mask == "float32":
        inputs = inputs._replace(mask=inputs.mask * torch.linspace(-50, 100, inputs.mask.numel()).reshape(70, 130))
    root = scale**0.5
    return inputs._replace(
        user_factors=inputs.user_factors * root, item_factors=inputs.item_factors * root,
        user_bias=inputs.user_bias * scale, item_bias=inputs.item_bias * scale,
        global_bias=inputs.global_bias * scale, ratings=inputs.ratings * scale,
    )  # fmt: skip


def at(inputs: Inputs, bias: float) -> Inputs:
    return inputs._replace(global_bias=torch.full_like(inputs.global_bias, bias))


def projected(outputs: list[np.ndarray], with_signs: np.ndarray) -> list[float]:
    return [project(output, with_signs) for output in outputs]


@pytest.mark.parametrize("mask", ["uint8", "none", "float32"])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_the_oracle_is_met_at_every_bias(scale: float, mask: str) -> None:
    inputs = inputs_of(scale=scale, mask=mask)
    expected = ExpectedOutputs.of(gate.standard(inputs))
    biases = expected.biases(20)
    assert len(set(biases)) == 20
    assert np.ptp(biases) > 0.5 * (expected.high - expected.low)
    for bias in biases[:5]:
        exact = to_arrays(oracle_loss_and_grads(*at(inputs, bias)))
        strict = expected._replace(standard=expected.standard._replace(bounds=[1e-9] * 6))
        assert strict.wrong_numbers(bias, exact[0].item(), exact[-1].item()) == []
        for bits in (new_bits() for _ in range(3)):
            assert strict.wrong_projections(bias, signs(bits), projected(exact, signs(bits))) == []


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_honest_outputs_are_right_and_those_of_another_bias_are_not(scale: float) -> None:
    inputs = inputs_of(scale=scale)
    expected = ExpectedOutputs.of(gate.standard(inputs))
    bias, other = (float(np.float32(end)) for end in (expected.low, expected.high))
    honest = [value.numpy() for value in _tensors(at(inputs, bias))]
    assert expected.wrong_numbers(bias, honest[0].item(), honest[-1].item()) == []
    assert expected.wrong_projections(bias, SIGNS, projected(honest, SIGNS)) == []
    stale = [value.numpy() for value in _tensors(at(inputs, other))]
    small = scale < 1  # then the regulariser is nearly all of the loss and of the factors' gradients
    assert "global_bias" in expected.wrong_numbers(bias, stale[0].item(), stale[-1].item())
    wrong = expected.wrong_projections(bias, SIGNS, projected(stale, SIGNS))
    assert "global_bias" in wrong if small else wrong == list(OUTPUTS)


@pytest.mark.parametrize("output", range(1, 5))
@pytest.mark.parametrize("fault", ["constant", "reversed", "two rows swapped", "NaN"])
def test_entries_with_the_right_sum_are_seen_by_their_signs(output: int, fault: str) -> None:
    inputs = inputs_of()
    expected = ExpectedOutputs.of(gate.standard(inputs))
    (bias,) = expected.biases(1)
    values = [value.numpy().copy() for value in _tensors(at(inputs, bias))]
    honest = values[output].copy()
    values[output] = {
        "constant": np.full_like(honest, honest.mean()),
        "reversed": honest[::-1].copy(),
        "two rows swapped": honest[[1, 0, *range(2, len(honest))]],
        "NaN": np.where(np.arange(honest.size).reshape(honest.shape) == 5, np.nan, honest),
    }[fault]
    drawn = [signs(new_bits()) for _ in range(20)]
    found = [expected.wrong_projections(bias, other, projected(values, other)) for other in drawn]
    assert all(wrong in ([], [OUTPUTS[output]]) for wrong in found)
    assert sum(bool(wrong) for wrong in found) >= (5 if fault == "two rows swapped" else 18)  # a row may be one number


@pytest.mark.parametrize("density", [0.0, 1.0])
def test_nothing_and_everything_observed(density: float) -> None:
    inputs = inputs_of(density)
    expected = ExpectedOutputs.of(gate.standard(inputs))
    (bias,) = expected.biases(1)
    honest = [value.numpy() for value in _tensors(at(inputs, bias))]
    assert expected.wrong_projections(bias, SIGNS, projected(honest, SIGNS)) == []


def test_what_is_not_finite_in_the_oracle_is_not_held_against_anyone() -> None:
    inputs = inputs_of()
    inputs.ratings[5, 7], inputs.mask[5, 7] = float("nan"), 1
    expected = ExpectedOutputs.of(gate.standard(inputs))
    (bias,) = expected.biases(1)
    values = [value.numpy() for value in _tensors(at(inputs, bias))]
    assert expected.wrong_numbers(bias, values[0].item(), values[-1].item()) == []
    assert expected.wrong_projections(bias, SIGNS, projected(values, SIGNS)) == []


@pytest.mark.parametrize("size", [0, 1, PERIOD - 1, PERIOD, 3 * PERIOD + 5])
def test_folded_is_a_sum(size: int) -> None:
    values = np.random.default_rng(1).normal(size=size)
    expected = np.bincount(np.arange(size) % PERIOD, weights=values, minlength=PERIOD)
    np.testing.assert_allclose(folded(values), expected, atol=1e-12)
    np.testing.assert_allclose(project(values, SIGNS), expected @ SIGNS, atol=1e-9)


def _tensors(inputs: Inputs) -> list[torch.Tensor]:
    loss, grads = autograd_loss_and_grads(*inputs)
    return [loss.detach(), *grads]
