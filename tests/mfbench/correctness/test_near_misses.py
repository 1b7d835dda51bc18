"""Near misses of the formula are what a kernel with that fault computes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from mfbench.correctness.near_misses import near_misses, to_arrays
from mfbench.problems.inputs import Inputs
from reference import oracle_loss_and_grads
from tests.problems import draw_inputs


@pytest.fixture
def inputs() -> Inputs:
    drawn = draw_inputs(17, 23, 4, torch.float64, torch.float64, torch.uint8)
    return drawn._replace(ratings=drawn.ratings.nan_to_num(1.5, 1.5, 1.5))  # finite at unobserved places


def by_autograd(inputs: Inputs, error: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> list[np.ndarray]:
    """Loss and gradients of another error; the regulariser is the formula's."""
    leaves = [parameter.detach().requires_grad_() for parameter in inputs[:5]]
    loss = error(*leaves, inputs.ratings, inputs.mask).square().sum()
    loss = loss + inputs.reg * sum(leaf.square().sum() for leaf in leaves[:4])
    grads = torch.autograd.grad(loss, leaves, allow_unused=True)
    return [
        loss.detach().numpy(),
        *((torch.zeros_like(p) if g is None else g).numpy() for p, g in zip(leaves, grads, strict=True)),
    ]


FORMULAS = {
    "includes the unobserved ratings": lambda P, Q, bu, bi, mu, R, mask: P @ Q.T + bu + bi.T + mu - R,
    "treats unobserved ratings as zeros": lambda P, Q, bu, bi, mu, R, mask: P @ Q.T + bu + bi.T + mu - R * (mask != 0),
}


@pytest.mark.parametrize("fault", FORMULAS)
def test_faults_of_the_mask(inputs: Inputs, fault: str) -> None:
    found = near_misses(inputs)[fault]
    for value, expected in zip(found, by_autograd(inputs, FORMULAS[fault]), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-9, atol=1e-9)


WEIGHTS = {
    "treats the weights as a binary mask": lambda mask: mask != 0,
    "has the weights to the first power, not squared": lambda mask: mask.abs().sqrt(),
}


@pytest.mark.parametrize("fault", WEIGHTS)
def test_faults_of_the_weights(fault: str) -> None:
    drawn = draw_inputs(17, 23, 4, torch.float64, torch.uint8, torch.float32)

    def error(P, Q, bu, bi, mu, R, mask):
        return (P @ Q.T + bu + bi.T + mu - R) * WEIGHTS[fault](mask.double())

    for value, expected in zip(near_misses(drawn)[fault], by_autograd(drawn, error), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("letter", "place"), [("bu", 2), ("bi", 3), ("mu", 4)])
def test_a_bias_left_out_of_the_prediction(inputs: Inputs, letter: str, place: int) -> None:
    def error(*arguments: torch.Tensor) -> torch.Tensor:
        P, Q, bu, bi, mu = (
            argument * 0 if number == place else argument for number, argument in enumerate(arguments[:5])
        )
        return (P @ Q.T + bu + bi.T + mu - arguments[5]) * (arguments[6] != 0)

    found = near_misses(inputs)[f"lacks {letter} in the prediction"]
    expected = by_autograd(inputs, error)
    for number, (value, right) in enumerate(zip(found, expected, strict=True)):
        if number != place + 1:  # a kernel that forgets the bias still gives a gradient for it
            np.testing.assert_allclose(value, right, rtol=1e-9, atol=1e-9)


def test_large_problems_have_none(inputs: Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mfbench.correctness.near_misses.MAX_RATINGS", inputs.ratings.numel() - 1)
    assert near_misses(inputs) == {}


def test_the_formula_itself_is_no_near_miss(inputs: Inputs) -> None:
    right = to_arrays(oracle_loss_and_grads(*inputs))
    for values in near_misses(inputs).values():
        assert not all(np.allclose(value, exact) for value, exact in zip(values, right, strict=True))
