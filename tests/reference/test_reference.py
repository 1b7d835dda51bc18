"""The notebook's autograd and the float64 oracle agree with each other, with exact fractions and with gradcheck."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reference import autograd_loss_and_grads, oracle, oracle_loss_and_grads
from reference.autograd import notebook_loss, notebook_operands
from tests.problems import MASKS, RATINGS, draw_inputs, problems

BOTH = pytest.mark.parametrize("step", [autograd_loss_and_grads, oracle_loss_and_grads], ids=["autograd", "oracle"])
INF, NAN = float("inf"), float("nan")
FLOATS = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2,
)  # fmt: skip


def flat(result):
    """Return loss and gradients as float64 arrays."""
    loss, grads = result
    return [np.asarray(value, dtype=np.float64) for value in (loss, *grads)]


def scales(inputs):
    """Return for every output the sums of its terms' absolute values, to which rounding errors are proportional."""
    positive = inputs._replace(
        **{name: getattr(inputs, name).abs() for name in inputs._fields[:5]},
        ratings=-inputs.ratings.double().abs(),
        mask=inputs.mask.double().abs() if inputs.weighted else inputs.mask,
        reg=abs(inputs.reg),
    )
    return flat(oracle_loss_and_grads(*positive))


def assert_close(result, expected, inputs, tolerance):
    """Check every entry to within `tolerance` times the sum of its terms' absolute values."""
    for got, exact, scale in zip(flat(result), flat(expected), scales(inputs), strict=True):
        assert got.shape == exact.shape
        assert (np.abs(got - exact) <= tolerance * scale).all()  # false where a NaN is


def same(first, second):
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(flat(first), flat(second), strict=True))


@given(inputs=problems(dtypes=(torch.float64,)))
def test_float64_autograd_and_oracle_agree(inputs):
    assert_close(autograd_loss_and_grads(*inputs), oracle_loss_and_grads(*inputs), inputs, 1e-13)


@given(inputs=problems(dtypes=(torch.float32,)))
def test_float32_autograd_is_within_rounding_of_the_oracle(inputs):
    terms = sum(inputs.ratings.shape) + inputs.user_factors.shape[1]  # Higham's bound: a rounding for every addition
    tolerance = torch.finfo(torch.float32).eps * (terms + 4)
    assert_close(autograd_loss_and_grads(*inputs), oracle_loss_and_grads(*inputs), inputs, tolerance)


@given(inputs=problems(max_size=6, max_rank=3))
def test_oracle_is_the_formula_in_exact_fractions(inputs):
    P, Q = ([[Fraction(x) for x in row] for row in factors.tolist()] for factors in inputs[:2])
    bu, bi, (mu,) = ([Fraction(x) for x in values.reshape(-1).tolist()] for values in inputs[2:5])
    reg, (m, n), rank = Fraction(inputs.reg), inputs.ratings.shape, len(P[0])
    mask = inputs.ratings == inputs.ratings if inputs.mask is None else inputs.mask
    weights = (mask.double() if inputs.weighted else mask.bool().double()).tolist()
    observed = [(i, j) for i in range(m) for j in range(n) if weights[i][j] != 0]
    R = inputs.ratings.tolist()

    loss = reg * sum(x * x for values in (*P, *Q, bu, bi) for x in values)
    dP, dQ = ([[2 * reg * x for x in row] for row in factors] for factors in (P, Q))
    dbu, dbi, dmu = [2 * reg * x for x in bu], [2 * reg * x for x in bi], Fraction(0)
    for i, j in observed:
        error = sum(p * q for p, q in zip(P[i], Q[j], strict=True)) + bu[i] + bi[j] + mu - Fraction(R[i][j])
        weight = Fraction(weights[i][j])
        loss += (weight * error) ** 2
        d_pred = 2 * weight**2 * error
        dbu[i], dbi[j], dmu = dbu[i] + d_pred, dbi[j] + d_pred, dmu + d_pred
        for k in range(rank):
            dP[i][k] += d_pred * Q[j][k]
            dQ[j][k] += d_pred * P[i][k]

    exact = [np.array(values, dtype=np.float64) for values in (dP, dQ, dbu, dbi, dmu)]
    shaped = [values.reshape(tuple(parameter.shape)) for values, parameter in zip(exact, inputs[:5], strict=True)]
    assert_close(oracle_loss_and_grads(*inputs), (float(loss), shaped), inputs, 1e-14)


@pytest.mark.parametrize("mask_dtype", [torch.int32, torch.float64])
def test_notebook_loss_passes_gradcheck(mask_dtype):
    *parameters, ratings, mask, reg = draw_inputs(5, 7, 3, torch.float64, torch.float64, mask_dtype)
    ratings, mask = notebook_operands(ratings, mask, torch.float64)
    parameters = [parameter.requires_grad_() for parameter in parameters]
    assert torch.autograd.gradcheck(lambda *p: notebook_loss(*p, ratings, mask, reg), parameters)


def test_autograd_is_the_notebook_bit_by_bit():
    """The notebook's lines as they stand, in its dtypes: float64 ratings, int32 mask, float32 parameters."""
    generator = torch.Generator().manual_seed(7)
    rating_matrix = torch.rand((200, 300), generator=generator, dtype=torch.double) * 5
    mask_matrix = (torch.rand((200, 300), generator=generator) > 0.2).int()
    u = torch.randn(1, generator=generator, requires_grad=True)
    bu = torch.randn((200, 1), generator=generator, requires_grad=True)
    bi = torch.randn((300, 1), generator=generator, requires_grad=True)
    p = torch.randn((200, 30), generator=generator, requires_grad=True)
    q = torch.randn((300, 30), generator=generator, requires_grad=True)
    r_predict = torch.mm(p, q.t()) + bu + bi.t() + u
    loss = torch.sum((r_predict * mask_matrix - rating_matrix * mask_matrix).pow(2)) + 0.1 * (
        bu.pow(2).sum() + bi.pow(2).sum() + p.pow(2).sum() + q.pow(2).sum()
    )
    loss.backward()

    got_loss, grads = autograd_loss_and_grads(p, q, bu, bi, u, rating_matrix, mask_matrix)
    assert got_loss.dtype == torch.float64
    assert torch.equal(got_loss, loss.detach())
    for grad, parameter in zip(grads, (p, q, bu, bi, u), strict=True):
        assert grad.dtype == torch.float32
        assert torch.equal(grad, parameter.grad)
    ratings, mask = notebook_operands(rating_matrix, mask_matrix, p.dtype)
    assert ratings is rating_matrix
    assert mask is mask_matrix


@BOTH
@pytest.mark.parametrize("mask_dtype", [dtype for dtype in MASKS[1:] if not dtype.is_floating_point])
def test_any_non_zero_of_an_integer_dtype_is_observed(step, mask_dtype):
    inputs = draw_inputs(11, 13, 4, mask_dtype=torch.bool)
    values = torch.tensor([2, 1, 7, -1 if mask_dtype.is_signed else 3])[torch.arange(11 * 13) % 4].reshape(11, 13)
    assert same(step(*inputs._replace(mask=(values * inputs.mask).to(mask_dtype))), step(*inputs))


@BOTH
@pytest.mark.parametrize("mask_dtype", FLOATS)
def test_zeros_and_ones_of_a_float_dtype_are_a_binary_mask(step, mask_dtype):
    inputs = draw_inputs(11, 13, 4, torch.float64, torch.float64)
    mask = torch.where(inputs.mask, 1.0, -0.0).to(mask_dtype)  # -0.0 is a zero as well
    assert same(step(*inputs._replace(mask=mask)), step(*inputs))


@BOTH
@pytest.mark.parametrize("mask_dtype", FLOATS)
@pytest.mark.parametrize("ratings_dtype", [torch.float64, torch.float16, torch.uint8])
def test_a_float_mask_holds_the_weights_of_the_notebook(step, mask_dtype, ratings_dtype):
    """The notebook's lines in float64; unobserved ratings are NaN or infinite where the dtype has them."""
    inputs = draw_inputs(11, 13, 4, torch.float64, ratings_dtype, mask_dtype)
    parameters = [parameter.clone().requires_grad_() for parameter in inputs[:5]]
    p, q, bu, bi, u = parameters
    mask = inputs.mask.double()
    assert {float(weight) for weight in mask.sign().unique()} == {-1.0, 0.0, 1.0}
    rating = inputs.ratings.double().where(mask != 0, 0)
    r_predict = torch.mm(p, q.t()) + bu + bi.t() + u
    loss = torch.sum((r_predict * mask - rating * mask).pow(2)) + inputs.reg * (
        bu.pow(2).sum() + bi.pow(2).sum() + p.pow(2).sum() + q.pow(2).sum()
    )
    expected = loss.detach(), torch.autograd.grad(loss, parameters)
    assert_close(step(*inputs), expected, inputs, 1e-14)


@BOTH
@pytest.mark.parametrize("weight", [NAN, INF])
def test_a_weight_that_is_not_finite_is_an_observed_error_that_is_not(step, weight):
    inputs = draw_inputs(11, 13, 4, torch.float64, mask_dtype=torch.float32)
    inputs.mask[3, 8], inputs.ratings[3, 8] = weight, 1
    loss, *grads = flat(step(*inputs))
    assert not np.isfinite(loss)
    for grad, place in zip(grads, (3, 8, 3, 8, 0), strict=True):
        wrong = ~np.isfinite(grad).reshape(len(grad), -1)
        assert wrong[place].all()
        assert wrong.sum() == wrong[place].size


@BOTH
@pytest.mark.parametrize("ratings_dtype", RATINGS)
def test_unobserved_ratings_never_reach_a_result(step, ratings_dtype):
    inputs = draw_inputs(11, 13, 4, ratings_dtype=ratings_dtype)
    others = inputs.ratings.masked_fill(~inputs.mask, 99 if not ratings_dtype.is_floating_point else INF)
    plain = inputs.ratings.masked_fill(~inputs.mask, 0)
    expected = step(*inputs._replace(ratings=plain))
    assert np.isfinite(flat(expected)[0])
    assert same(step(*inputs._replace(ratings=others)), expected)
    assert same(step(*inputs), expected)  # NaN and infinities where the dtype has them


@BOTH
def test_without_a_mask_nan_is_missing(step):
    inputs = draw_inputs(11, 13, 4, mask_dtype=None)
    assert inputs.ratings.isnan().any()
    assert same(step(*inputs), step(*inputs._replace(mask=~inputs.ratings.isnan())))
    whole = draw_inputs(11, 13, 4, ratings_dtype=torch.int8, mask_dtype=None)
    assert same(step(*whole), step(*whole._replace(mask=torch.ones(11, 13))))


@BOTH
def test_observed_nan_reaches_exactly_its_own_outputs(step):
    inputs = draw_inputs(11, 13, 4, density=1.0)
    inputs.ratings[3, 8] = NAN
    loss, *grads = flat(step(*inputs))
    assert np.isnan(loss)
    for grad, place in zip(grads, (3, 8, 3, 8, 0), strict=True):
        nan = np.isnan(grad).reshape(len(grad), -1)
        assert nan[place].all()
        assert nan.sum() == nan[place].size


@BOTH
@pytest.mark.parametrize("mask_dtype", [torch.int32, None])
@pytest.mark.parametrize("shape", [(0, 5, 3), (4, 0, 3), (4, 5, 0), (0, 0, 3), (0, 0, 0)])
def test_empty_sizes_leave_what_the_formula_leaves(step, shape, mask_dtype):
    inputs = draw_inputs(*shape, torch.float64, torch.float64, mask_dtype)
    P, Q, bu, bi, mu, ratings, mask, reg = inputs
    observed = ~ratings.isnan() if mask is None else mask != 0
    E = torch.where(observed, bu + bi.T + mu - ratings, 0.0)  # of sizes 0, or of rank 0
    squares = sum(parameter.square().sum() for parameter in inputs[:4])
    expected = (
        E.square().sum() + reg * squares,
        (2 * reg * P, 2 * reg * Q, 2 * (E.sum(1, keepdim=True) + reg * bu),
         2 * (E.sum(0).unsqueeze(1) + reg * bi), 2 * E.sum().reshape(1)),
    )  # fmt: skip
    assert_close(step(*inputs), expected, inputs, 1e-14)


@pytest.mark.parametrize("block", [1, 26, 100])
@pytest.mark.parametrize("mask_dtype", [torch.int32, None])
def test_blocks_of_the_oracle_add_up(monkeypatch, block, mask_dtype):
    inputs = draw_inputs(23, 13, 4, mask_dtype=mask_dtype)
    whole = oracle_loss_and_grads(*inputs)
    monkeypatch.setattr(oracle, "BLOCK_ELEMENTS", block)
    assert_close(oracle_loss_and_grads(*inputs), whole, inputs, 1e-14)


@BOTH
def test_biases_as_vectors_or_columns(step):
    columns, vectors = (draw_inputs(11, 13, 4, columns=columns) for columns in (True, False))
    loss, grads = step(*columns)
    other_loss, other_grads = step(*vectors)
    assert loss == other_loss
    for grad, other, column, vector in zip(grads, other_grads, columns, vectors, strict=False):
        assert tuple(grad.shape) == tuple(column.shape)
        assert tuple(other.shape) == tuple(vector.shape)
        np.testing.assert_array_equal(grad.reshape(-1), other.reshape(-1))


@BOTH
@given(seed=st.integers(0, 2**31))
def test_inputs_stay_as_they_were(step, seed):
    inputs = draw_inputs(11, 13, 4, torch.float64, torch.float64, torch.int32, seed=seed)
    for parameter in inputs[:5]:
        parameter.requires_grad_()
    before = [value.detach().clone() for value in inputs[:7]]
    step(*inputs)
    for value, old in zip(inputs[:7], before, strict=True):
        assert torch.equal(value.detach().nan_to_num(7), old.nan_to_num(7))
        assert value.grad is None


def test_reference_stands_alone():
    code = "import sys, reference; sys.exit(any(name.split('.')[0] in ('kernels', 'mfbench') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
