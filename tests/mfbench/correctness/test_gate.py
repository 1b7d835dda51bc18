"""The gate: honest results pass at every scale, planted faults fail and are named by their output."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kernels import mf_loss_and_grads
from mfbench.correctness import gate
from mfbench.problems.cases import Case
from mfbench.problems.inputs import Inputs, draw
from mfbench.providers.outputs import OUTPUTS
from reference import autograd_loss_and_grads, oracle_loss_and_grads

SCALES = [1e-8, 1e-3, 1.0, 1e8]


def inputs_at(scale: float, m: int = 67, n: int = 131, rank: int = 9, seed: int = 5) -> Inputs:
    case = Case(suite="t", m=m, n=n, rank=rank, density=0.7, ratings_dtype="float32", mask="uint8",
                data="synthetic", seed=seed)  # fmt: skip
    drawn = draw(case)
    root = scale**0.5  # the product of the factors then has the scale of the ratings
    return drawn._replace(
        user_factors=drawn.user_factors * root, item_factors=drawn.item_factors * root,
        user_bias=drawn.user_bias * scale, item_bias=drawn.item_bias * scale, global_bias=drawn.global_bias * scale,
        ratings=drawn.ratings * scale, reg=0.1 * root,
    )  # fmt: skip


def flat(result) -> list[np.ndarray]:
    loss, grads = result
    return [np.asarray(value, dtype=np.float64) for value in (loss, *grads)]


def wrong(standard: gate.Standard, outputs: list[np.ndarray]) -> list[str]:
    return [name for name, verdict in standard.judge(outputs).items() if not verdict.ok]


@pytest.mark.parametrize("scale", SCALES)
def test_honest_results_pass(scale: float) -> None:
    inputs = inputs_at(scale)
    standard = gate.standard(inputs)
    for result in (
        autograd_loss_and_grads(*inputs),
        mf_loss_and_grads(*inputs, backend="torch"),
        oracle_loss_and_grads(*inputs),
    ):
        assert wrong(standard, flat(result)) == []


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("output", range(6))
@pytest.mark.parametrize("fault", ["zero", "double", "one entry", "nan", "shape"])
def test_faults_in_one_output_fail_there(scale: float, output: int, fault: str) -> None:
    inputs = inputs_at(scale)
    standard = gate.standard(inputs)
    outputs = flat(oracle_loss_and_grads(*inputs))
    value = outputs[output].copy()
    if fault == "zero":
        value *= 0
    elif fault == "double":
        value *= 2
    elif fault == "one entry":
        value.reshape(-1)[-1] *= 1.001
    elif fault == "nan":
        value.reshape(-1)[0] = np.nan
    else:
        value = value.reshape(-1, 1, 1)
    outputs[output] = value
    assert wrong(standard, outputs) == [OUTPUTS[output]]


def planted(inputs: Inputs, fault: str) -> list[np.ndarray]:
    """The oracle with a fault of the kind that kernels have."""
    if fault == "mask ignored":
        return flat(oracle_loss_and_grads(*inputs._replace(mask=torch.ones_like(inputs.mask))))
    if fault == "mask ignored in the last column":
        mask = inputs.mask.clone()
        mask[:, -1] = 1
        return flat(oracle_loss_and_grads(*inputs._replace(mask=mask)))
    if fault == "last row lost":
        mask = inputs.mask.clone()
        mask[-1] = 0
        return flat(oracle_loss_and_grads(*inputs._replace(mask=mask)))
    if fault == "no regulariser":
        return flat(oracle_loss_and_grads(*inputs._replace(reg=0.0)))
    if fault == "global bias regularised":
        outputs = flat(oracle_loss_and_grads(*inputs))
        outputs[5] = outputs[5] + 2 * inputs.reg * inputs.global_bias.double().numpy()
        return outputs
    if fault == "half-precision factors":
        P, Q = inputs.user_factors.bfloat16().float(), inputs.item_factors.bfloat16().float()
        return flat(oracle_loss_and_grads(*inputs._replace(user_factors=P, item_factors=Q)))
    assert fault == "no global bias"
    return flat(oracle_loss_and_grads(*inputs._replace(global_bias=torch.zeros(1))))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(
    ("fault", "caught_in"),
    [
        ("mask ignored", "user_factors"),
        ("mask ignored in the last column", "item_bias"),
        ("last row lost", "user_bias"),
        ("no regulariser", "item_factors"),
        ("global bias regularised", "global_bias"),
        ("half-precision factors", "user_factors"),
        ("no global bias", "item_bias"),
    ],
)
def test_kernel_faults_fail(scale: float, fault: str, caught_in: str) -> None:
    inputs = inputs_at(scale)
    if fault == "no regulariser":
        inputs = inputs._replace(reg=10 * scale)  # weighs as much against the sums over ratings at every scale
    elif fault == "global bias regularised":
        inputs = inputs._replace(reg=10.0)
    assert caught_in in wrong(gate.standard(inputs), planted(inputs, fault))


def test_observed_nan_belongs_to_its_row_and_column() -> None:
    inputs = inputs_at(1.0)
    ratings = inputs.ratings.clone()
    ratings[3, 4], mask = float("nan"), inputs.mask.clone()
    mask[3, 4] = 1
    inputs = inputs._replace(ratings=ratings, mask=mask)
    standard = gate.standard(inputs)
    outputs = flat(mf_loss_and_grads(*inputs, backend="torch"))
    assert np.isnan(outputs[0])
    assert wrong(standard, outputs) == []
    outputs[1] = np.nan_to_num(outputs[1])
    assert wrong(standard, outputs) == ["user_factors"]


def scales_of_the_whole(inputs: Inputs, exact: list[np.ndarray]) -> list[np.ndarray]:
    """The scales from the definition: the oracle on a float64 copy of the absolute values."""
    mask = inputs.mask
    if mask is not None and mask.is_floating_point():
        mask = mask.double().abs()
    absolute = {name: getattr(inputs, name).abs() for name in Inputs._fields[:5]}
    loss, *gradients = flat(
        oracle_loss_and_grads(**absolute, ratings=-inputs.ratings.double().abs(), mask=mask, reg=abs(inputs.reg))
    )
    return [np.sqrt(np.abs(exact[0] * loss)), *gradients]


@pytest.mark.parametrize("reg", [0.1, -0.3, 0.0])
@pytest.mark.parametrize("block", [1, 1000, 1 << 22])  # elements: one user, several users, everything
@pytest.mark.parametrize(("ratings_dtype", "mask"), [
    ("float32", "uint8"), ("float32", "none"), ("float64", "float32"), ("float16", "bool"), ("int8", "int64"),
])  # fmt: skip
def test_scales_in_blocks_are_those_of_the_whole_matrix(
    monkeypatch, ratings_dtype: str, mask: str, block: int, reg: float
) -> None:
    monkeypatch.setattr(gate, "BLOCK_ELEMENTS", block)
    case = Case(suite="t", m=67, n=131, rank=9, density=0.7, ratings_dtype=ratings_dtype, mask=mask, data="synthetic",
                seed=5)  # fmt: skip
    inputs = draw(case)._replace(reg=reg)
    exact = flat(oracle_loss_and_grads(*inputs))
    scales = gate._scales(inputs, exact, oracle_loss_and_grads)
    for found, expected in zip(scales, scales_of_the_whole(inputs, exact), strict=True):
        assert found.shape == expected.shape
        if block == 1 << 22:  # the oracle's own blocks: the same sums in the same order
            np.testing.assert_array_equal(found, expected)
        else:
            np.testing.assert_allclose(found, expected, rtol=1e-13)


@pytest.mark.parametrize(("m", "n"), [(0, 5), (5, 0)])
def test_scales_of_no_ratings_are_those_of_the_regulariser(m: int, n: int) -> None:
    inputs = inputs_at(1.0, m, n)
    exact = flat(oracle_loss_and_grads(*inputs))
    scales = gate._scales(inputs, exact, oracle_loss_and_grads)
    for found, expected in zip(scales, scales_of_the_whole(inputs, exact), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_large_matrices_are_held_to_eager_blocks(monkeypatch) -> None:
    inputs = inputs_at(1.0)
    whole = gate.standard(inputs)
    monkeypatch.setattr(gate, "EAGER_ELEMENTS", 1000)
    blocks = gate.standard(inputs)
    for a, b in zip(whole.exact, blocks.exact, strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.allclose(whole.bounds, blocks.bounds, rtol=0.5)
    assert wrong(blocks, flat(autograd_loss_and_grads(*inputs))) == []
