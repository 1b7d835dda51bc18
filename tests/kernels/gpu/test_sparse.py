"""The sparse kernel in Triton's interpreter against the float64 oracle. Every row takes it milliseconds, so few do."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernels import encode_ratings, mf_loss_and_grads, mf_sse
from kernels.gpu import sparse_config
from kernels.gpu.config import Target
from kernels.gpu.sparse_config import ROW_COST, pick_sparse, programs_of, share_of
from reference import oracle_loss_and_grads
from tests.kernels.gpu.test_interpret import assert_exact, run_in_order
from tests.kernels.test_csr import csr_of, sparse_of, sparse_problems
from tests.problems import assert_right, draw_inputs

pytest.importorskip("triton", reason="Triton is not installed")
pytestmark = [pytest.mark.interpret, pytest.mark.usefixtures("poisoned")]
warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
RANKS = (1, 4, 5, 33, 48, 49, 96, 97, 300, 512)  # on both sides of a change of the columns
MODES = pytest.mark.parametrize("deterministic", [False, True], ids=["fast", "deterministic"])


@pytest.fixture
def small_shares(monkeypatch):
    """Many programs even for few ratings, so that rows are divided among them, and several passes over a row."""
    monkeypatch.setattr(sparse_config, "INTERPRETED_WORK", 24)
    monkeypatch.setattr(sparse_config, "INTERPRETED_ENTRIES", 8)


@given(problem=sparse_problems(max_users=4, max_items=7), encoded=st.booleans(), deterministic=st.booleans())
def test_any_shape_dtype_and_order(problem, encoded, deterministic):
    inputs, ratings = problem
    options = {"backend": "interpret", "deterministic": deterministic}
    if encoded:
        ratings = encode_ratings(ratings, layout="sparse")
    assert_right(inputs, mf_loss_and_grads(*inputs[:5], ratings, reg=inputs.reg, **options))
    sse = mf_sse(*inputs[:5], ratings, **options)
    expected = mf_sse(*inputs[:5], ratings, backend="torch")
    assert sse.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("rank", RANKS)
@MODES
def test_every_width_of_the_factors(rank, deterministic):
    inputs = draw_inputs(5, 7, rank, dtype=torch.float64, mask_dtype=torch.bool, density=0.6, seed=rank)
    result = mf_loss_and_grads(*inputs[:5], sparse_of(inputs), backend="interpret", deterministic=deterministic)
    assert_exact(inputs, result)


@pytest.mark.usefixtures("small_shares")
@pytest.mark.parametrize("shape", [(1, 150), (70, 1), (3, 60)], ids=["a user", "an item", "few users"])
@MODES
def test_a_row_divided_among_programs(shape, deterministic):
    """The walk of the short side has one row for many programs; that of the other, rows of one entry."""
    inputs = draw_inputs(*shape, 3, dtype=torch.float64, density=0.9)
    result = mf_loss_and_grads(*inputs[:5], sparse_of(inputs), backend="interpret", deterministic=deterministic)
    assert_exact(inputs, result)


@pytest.mark.usefixtures("small_shares")
@MODES
def test_rows_without_an_entry(deterministic):
    """At the ends, and more of them in a row than a program has work for."""
    inputs = draw_inputs(12, 10, 3, dtype=torch.float64, density=0.8)
    inputs.mask[:5], inputs.mask[6:10], inputs.mask[11] = False, False, False
    inputs.mask[:, :2], inputs.mask[:, 4:8], inputs.mask[:, 9] = False, False, False
    result = mf_loss_and_grads(*inputs[:5], sparse_of(inputs), backend="interpret", deterministic=deterministic)
    assert_exact(inputs, result)


@pytest.mark.parametrize("items", [65_536, 65_537])
def test_columns_at_the_ends_of_16_bits(items, monkeypatch):
    monkeypatch.setattr("kernels.gpu.sparse_plan.ELEMENTS", 1 << 18)  # few programs for what surrounds the pass
    ratings = csr_of([0, 2, 4], [0, items - 1, 32_768, 40_000], shape=(2, items))
    encoded = encode_ratings(ratings, layout="sparse")
    assert encoded.columns.dtype == (torch.uint16 if items == 65_536 else torch.int32)
    inputs = draw_inputs(2, items, 2, density=0.0)
    result = mf_loss_and_grads(*inputs[:5], encoded, backend="interpret")
    expected = mf_loss_and_grads(*inputs[:5], encoded, backend="torch")
    for got, exact in zip((result[0], *result[1]), (expected[0], *expected[1]), strict=True):
        torch.testing.assert_close(got, exact, rtol=1e-5, atol=1e-4)


@pytest.mark.usefixtures("small_shares")
def test_deterministic_whatever_the_order_of_programs(monkeypatch):
    orders = (list, lambda programs: programs[::-1], lambda programs: programs[1::2] + programs[::2])
    inputs = draw_inputs(6, 8, 5, density=0.6)
    problem = (*inputs[:5], sparse_of(inputs))
    exact = [run_in_order(monkeypatch, order, *problem, deterministic=True) for order in orders]
    fast = [run_in_order(monkeypatch, order, *problem) for order in orders]
    assert all(torch.equal(a, b) for other in exact[1:] for a, b in zip(exact[0], other, strict=True))
    assert not all(torch.equal(a, b) for other in fast[1:] for a, b in zip(fast[0], other, strict=True))


@MODES
def test_a_stored_nan_reaches_its_own_gradients_alone(deterministic):
    ratings = csr_of([0, 2, 3, 4], [0, 3, 1, 2], torch.tensor([0.0, 4.0, float("nan"), 2.0]), (3, 4))
    inputs = draw_inputs(3, 4, 5)
    loss, grads = mf_loss_and_grads(*inputs[:5], ratings, backend="interpret", deterministic=deterministic)
    assert loss.isnan()
    assert grads.user_bias.flatten().isnan().tolist() == [False, True, False]
    assert grads.item_factors.isnan().all(1).tolist() == [False, True, False, False]
    assert grads.user_factors.isnan().any(1).tolist() == [False, True, False]
    assert grads.item_bias.flatten().isnan().tolist() == [False, True, False, False]


def test_a_nan_parameter_of_an_item_that_nobody_rated_stays_there():
    """Lanes beyond a row's end read no factors, not those of item 0."""
    inputs = draw_inputs(2, 3, 4, dtype=torch.float64, density=1.0)
    inputs.mask[:, 0] = False
    inputs.item_factors[0] = float("nan")
    _, grads = mf_loss_and_grads(*inputs[:5], sparse_of(inputs), backend="interpret")
    inputs.item_factors[0] = 0
    _, exact = oracle_loss_and_grads(*inputs)
    np.testing.assert_allclose(grads.user_factors.numpy(), exact[0], rtol=1e-11)


def test_shares_cover_all_work_in_few_programs():
    small, large = Target("sm_90", 1, 0), Target("sm_90", 132, 0)
    config = pick_sparse(large, 32, deterministic=False)
    for rows, entries in ((1, 1), (1, 10**6), (10**6, 1), (10**6, 10**6), (3 * 10**7, 3 * 10**9)):
        for target in (small, large):
            share = share_of(target, config, entries, rows)
            programs = programs_of(share, entries, rows)
            work = entries + ROW_COST * rows
            assert (programs - 1) * share < work <= programs * share
            assert programs <= sparse_config.PROGRAMS_PER_MULTIPROCESSOR * target.multiprocessors


def test_deterministic_shares_do_not_depend_on_the_device():
    shares = {
        share_of(target, pick_sparse(target, 32, deterministic=True), 10**7, 10**5)
        for target in (Target("sm_80", 108, 0), Target("sm_90", 132, 0))
    }
    assert len(shares) == 1
