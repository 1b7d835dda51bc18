"""The reference on sparse ratings equals the reference on the same ratings as a matrix with a mask."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mfbench.problems.matrices import csr, to_sparse
from reference import autograd_loss_and_grads, oracle, oracle_loss_and_grads
from reference.autograd import gather_loss
from reference.problem import Triplets
from tests.problems import RATINGS, draw_inputs
from tests.reference.test_reference import BOTH, NAN, assert_close, flat

SIZES = st.integers(0, 30)


def sparse(inputs):
    return inputs._replace(ratings=to_sparse(inputs.ratings, inputs.mask), mask=None)


@BOTH
@given(
    m=SIZES, n=SIZES, rank=st.integers(0, 9), density=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    ratings_dtype=st.sampled_from(RATINGS), columns=st.booleans(), seed=st.integers(0, 2**31),
)  # fmt: skip
def test_sparse_ratings_give_what_the_matrix_gives(step, m, n, rank, density, ratings_dtype, columns, seed):
    inputs = draw_inputs(m, n, rank, torch.float64, ratings_dtype, density=density, seed=seed, columns=columns)
    ratings = inputs.ratings.masked_fill(torch.arange(n) % 3 == 0, 0)  # stored zeros are ratings
    inputs = inputs._replace(ratings=ratings)
    got, expected = step(*sparse(inputs)), oracle_loss_and_grads(*inputs)
    for grad, parameter in zip(got[1], inputs[:5], strict=True):
        assert tuple(grad.shape) == tuple(parameter.shape)
    assert_close(got, expected, inputs, 1e-13)


def test_float32_autograd_of_sparse_ratings_is_within_rounding():
    inputs = draw_inputs(40, 50, 16, density=0.2)
    result = autograd_loss_and_grads(*sparse(inputs))
    assert [grad.dtype for grad in result[1]] == [torch.float32] * 5
    assert_close(result, oracle_loss_and_grads(*inputs), inputs, 32 * torch.finfo(torch.float32).eps)


def test_gather_loss_passes_gradcheck():
    inputs = sparse(draw_inputs(5, 7, 3, torch.float64, torch.float64))
    triplets = Triplets.of(inputs.ratings)
    parameters = [parameter.requires_grad_() for parameter in inputs[:5]]
    assert torch.autograd.gradcheck(lambda *p: gather_loss(*p, *triplets, 0.1), parameters)


@pytest.mark.parametrize("block", [1, 26, 100])
def test_blocks_of_ratings_add_up(monkeypatch, block):
    inputs = sparse(draw_inputs(23, 13, 4))
    whole = oracle_loss_and_grads(*inputs)
    monkeypatch.setattr(oracle, "BLOCK_ELEMENTS", block)
    for part, expected in zip(flat(oracle_loss_and_grads(*inputs)), flat(whole), strict=True):
        np.testing.assert_array_equal(part, expected)


@BOTH
@pytest.mark.parametrize("index", [torch.int32, torch.int64])
def test_columns_in_any_order_and_indices_of_either_width(step, index):
    starts, columns = torch.tensor([0, 3, 3, 5], dtype=index), torch.tensor([4, 0, 2, 1, 0], dtype=index)
    values = torch.tensor([1.0, 0.0, 3.0, 0.5, 5.0])
    dense, mask = torch.zeros(3, 5), torch.zeros(3, 5, dtype=torch.bool)
    places = [0, 0, 0, 2, 2], columns.tolist()
    dense[places], mask[places] = values, True
    inputs = draw_inputs(3, 5, 2, torch.float64)._replace(ratings=dense, mask=mask)
    given_ = inputs._replace(ratings=csr(starts, columns, values, (3, 5)), mask=None)
    assert_close(step(*given_), oracle_loss_and_grads(*inputs), inputs, 1e-13)


@BOTH
def test_a_stored_nan_reaches_exactly_its_own_outputs(step):
    inputs = sparse(draw_inputs(11, 13, 4, density=0.6))
    at = int((Triplets.of(inputs.ratings).users == 3).nonzero()[0])
    item = int(inputs.ratings.col_indices()[at])
    inputs.ratings.values()[at] = NAN
    loss, *grads = flat(step(*inputs))
    assert np.isnan(loss)
    for grad, place in zip(grads, (3, item, 3, item, 0), strict=True):
        nan = np.isnan(grad).reshape(len(grad), -1)
        assert nan[place].all()
        assert nan.sum() == nan[place].size


@BOTH
def test_a_mask_beside_sparse_ratings_is_refused(step):
    inputs = sparse(draw_inputs(5, 7, 3))
    with pytest.raises(ValueError, match="mask: expected None"):
        step(*inputs._replace(mask=torch.ones(5, 7)))


def test_the_oracle_of_sparse_ratings_holds_no_matrix():
    """A matrix of this shape would take 8 TB."""
    m = n = 1_000_000
    starts = torch.arange(m + 1, dtype=torch.int32)
    inputs = draw_inputs(1, 1, 1)._replace(
        user_factors=torch.ones(m, 1), item_factors=torch.full((n, 1), 2.0), user_bias=torch.zeros(m, 1),
        item_bias=torch.zeros(n, 1), global_bias=torch.zeros(1),
        ratings=csr(starts, torch.arange(n, dtype=torch.int32).flip(0), torch.ones(m), (m, n)), mask=None, reg=0.0,
    )  # fmt: skip
    for loss, (dP, dQ, *_) in (oracle_loss_and_grads(*inputs), autograd_loss_and_grads(*inputs)):
        assert loss == m
        assert (np.asarray(dP) == 4).all()
        assert (np.asarray(dQ) == 2).all()
