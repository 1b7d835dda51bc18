"""Compare the compiled CPU kernel with the float64 oracle, in units of eager autograd's error."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernels import backends, encode_ratings, mf_loss, mf_loss_and_grads, mf_sse
from reference import autograd_loss_and_grads, oracle_loss_and_grads

pytestmark = pytest.mark.skipif(not backends()["native"].available, reason=backends()["native"].reason or "available")

OUTPUTS = ("loss", "user_factors", "item_factors", "user_bias", "item_bias", "global_bias")
RATING_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.uint8, torch.int8)
MASK_DTYPES = (
    None, torch.bool, torch.uint8, torch.int8, torch.uint16, torch.int16, torch.int32, torch.int64,
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2,
)  # fmt: skip
LAYOUTS = ("contiguous", "transposed", "sliced", "offset")


def laid_out(values: torch.Tensor, layout: str) -> torch.Tensor:
    """Copy values to another memory layout, among values that must never be read."""
    m, n = values.shape
    if layout == "transposed":
        return values.T.contiguous().T
    if layout == "sliced":
        return torch.full((2 * m, 3 * n), 77).to(values.dtype)[::2, ::3].copy_(values)
    if layout == "offset":
        return torch.full((m + 2, n + 5), 77).to(values.dtype)[1:-1, 3:-2].copy_(values)
    return values.clone()


def random_problem(m, n, rank, dtype, rating_dtype, mask_dtype, density=0.7, layouts=("contiguous",) * 3, seed=0):
    """Return parameters, ratings and mask, a float one with weights.

    Unobserved ratings are NaN or Inf, or 99 in integer dtypes.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    P, Q = laid_out(normal(m, rank), layouts[0]), laid_out(normal(n, rank), layouts[0])
    bu, bi, mu = 3 * normal(m, 1), normal(n) - 20, normal(1) + 3.5
    ratings = (torch.rand(m, n, generator=generator) * 5).to(rating_dtype)
    observed = torch.rand(m, n, generator=generator) < density
    observed[:, n // 3] = observed[m // 2] = False
    observed[:, n // 2] = True
    if ratings.is_floating_point():
        ratings[~observed] = float("nan")
        if mask_dtype is not None:
            ratings[~observed & (torch.rand(m, n, generator=generator) < 0.5)] = float("inf")
    else:
        ratings[~observed] = 99
    mask = None
    if mask_dtype is not None:
        values = torch.where(torch.rand(m, n, generator=generator) < 0.5, -1.0, 1.0)  # -0.0 is zero, -1 is observed
        if mask_dtype.is_floating_point:
            values *= 0.25 + torch.rand(m, n, generator=generator)
        mask = (observed * (values if mask_dtype.is_signed else 1)).to(mask_dtype)
        mask = laid_out(mask, layouts[2])
    return P, Q, bu, bi, mu, laid_out(ratings, layouts[1]), mask


def assert_as_exact_as_autograd(loss, grads, arguments, reg=0.1):
    """Check that every output's max and rms error is at most twice eager autograd's plus a few rounding errors.

    The rounding errors are relative to the same sums without cancellation, from a problem with positive terms only.
    """
    *parameters, ratings, mask = arguments
    weights = (~ratings.isnan() if mask is None else mask != 0).double()  # PyTorch computes little with uint16
    if mask is not None and mask.is_floating_point():
        weights = mask.double()
    exact_loss, exact_grads = oracle_loss_and_grads(*parameters, ratings, weights, reg=reg)
    eager_loss, eager_grads = autograd_loss_and_grads(*parameters, ratings, weights.to(parameters[0].dtype), reg=reg)
    positive = (parameter.detach().abs() for parameter in parameters)
    sum_loss, sum_grads = oracle_loss_and_grads(*positive, -ratings.double().abs(), weights.abs(), reg=reg)
    eps = torch.finfo(parameters[0].dtype).eps
    for name, got, eager, exact, magnitude in zip(
        OUTPUTS,
        (loss, *grads),
        (eager_loss, *eager_grads),
        (exact_loss, *exact_grads),
        (sum_loss, *sum_grads),
        strict=True,
    ):
        error, eager_error = (np.abs(values.detach().double().numpy() - exact) for values in (got, eager))
        assert np.isfinite(error).all(), name
        assert error.max() <= 2 * eager_error.max() + 4 * eps * np.max(magnitude), name
        assert rms(error) <= 2 * rms(eager_error) + 4 * eps * rms(magnitude), name


def rms(values):
    return math.sqrt(np.mean(np.square(values)))


def assert_shaped_as(grads, parameters):
    for grad, parameter in zip(grads, parameters, strict=True):
        assert (grad.shape, grad.dtype) == (parameter.shape, parameter.dtype)
        assert not grad.requires_grad


@given(
    m=st.integers(1, 220),
    n=st.integers(1, 220),
    rank=st.one_of(st.integers(1, 40), st.sampled_from([63, 64, 65, 128, 129, 200])),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    rating_dtype=st.sampled_from(RATING_DTYPES),
    mask_dtype=st.sampled_from(MASK_DTYPES),
    density=st.sampled_from([0.0, 0.01, 0.3, 0.8, 1.0]),
    layouts=st.tuples(*[st.sampled_from(LAYOUTS)] * 3),
    seed=st.integers(0, 2**31),
)
def test_any_shape_dtype_and_layout(m, n, rank, dtype, rating_dtype, mask_dtype, density, layouts, seed):
    arguments = random_problem(m, n, rank, dtype, rating_dtype, mask_dtype, density, layouts, seed)
    loss, grads = mf_loss_and_grads(*arguments, backend="native")
    assert loss.dtype == torch.float64
    assert loss.shape == ()
    assert_shaped_as(grads, arguments[:5])
    assert_as_exact_as_autograd(loss, grads, arguments)


@pytest.mark.parametrize("rating_dtype", RATING_DTYPES)
@pytest.mark.parametrize("mask_dtype", MASK_DTYPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_pair_of_dtypes(dtype, rating_dtype, mask_dtype):
    arguments = random_problem(53, 131, 9, dtype, rating_dtype, mask_dtype)
    assert_as_exact_as_autograd(*mf_loss_and_grads(*arguments, backend="native"), arguments)


@pytest.mark.parametrize(
    ("m", "n", "rank"), [(1, 3000, 33), (3000, 1, 33), (2, 2, 512), (1, 1, 1), (6, 16, 8), (97, 97, 300), (700, 611, 1)]
)
def test_extreme_shapes(m, n, rank):
    arguments = random_problem(m, n, rank, torch.float32, torch.float32, torch.uint8)
    assert_as_exact_as_autograd(*mf_loss_and_grads(*arguments, backend="native"), arguments)


@given(
    m=st.integers(1, 150),
    n=st.integers(1, 150),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    rating_dtype=st.sampled_from([torch.uint8, torch.int8, torch.float32]),
    encoding=st.sampled_from([None, "uint8-code", "uint8-bits", "int8-bits"]),
    transposed=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_encoded_ratings(m, n, dtype, rating_dtype, encoding, transposed, seed):
    if encoding and encoding.endswith("bits") and not encoding.startswith(str(rating_dtype).removeprefix("torch.")):
        encoding = "uint8-code"
    *parameters, _, mask = random_problem(m, n, 11, dtype, torch.float64, torch.bool, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    ratings = torch.randint(1, 11, (m, n), generator=generator).to(rating_dtype)
    ratings = ratings / 2 + 0.5 if rating_dtype.is_floating_point else ratings
    encoded = encode_ratings(ratings, mask, encoding, layout="dense")
    if transposed:
        bits = None if encoded.bits is None else encoded.bits.T.contiguous().T
        encoded = encoded._replace(values=encoded.values.T.contiguous().T, bits=bits)
    assert_as_exact_as_autograd(
        *mf_loss_and_grads(*parameters, encoded, backend="native"), (*parameters, ratings, mask)
    )


def test_broadcast_ratings_and_masks():
    P, Q, bu, bi, mu, *_ = random_problem(130, 210, 12, torch.float32, torch.float32, torch.bool)
    row, column = torch.rand(1, 210), (torch.rand(130, 1) < 0.5)
    arguments = (P, Q, bu, bi, mu, row.expand(130, 210), column.expand(130, 210))
    assert_as_exact_as_autograd(*mf_loss_and_grads(*arguments, backend="native"), arguments)
    arguments = (P[:1].expand(130, 12), Q, bu[:1].expand(130, 1), bi, mu, torch.tensor(2.5).expand(130, 210), None)
    assert_as_exact_as_autograd(*mf_loss_and_grads(*arguments, backend="native"), arguments)


def test_strided_biases_and_negative_zero_weights():
    P, Q, bu, bi, mu, ratings, _ = random_problem(40, 50, 5, torch.float32, torch.float32, torch.bool)
    mask = torch.tensor([0.0, -0.0, 0.5, 1e-45, -2.0]).repeat(40, 10)  # zero, zero, and three non-zeros
    ratings = torch.rand(40, 50)
    arguments = (P, Q, bu.repeat(1, 3)[:, 1:2], bi.repeat(2, 1).T[:, 0], mu.reshape(()), ratings, mask)
    assert_as_exact_as_autograd(*mf_loss_and_grads(*arguments, backend="native"), arguments)


def test_large_values_keep_relative_accuracy():
    for scale in (1e-8, 1e8):
        P, Q, bu, bi, mu, ratings, mask = random_problem(150, 170, 20, torch.float32, torch.float64, torch.int32)
        arguments = (P * scale, Q, bu * scale, bi * scale, mu * scale, ratings * scale, mask)
        assert_as_exact_as_autograd(*mf_loss_and_grads(*arguments, backend="native"), arguments)


def test_an_observed_nan_reaches_exactly_its_own_outputs():
    P, Q, bu, bi, mu, ratings, _ = random_problem(120, 140, 7, torch.float32, torch.float32, torch.uint8)
    ratings = torch.rand(120, 140)
    ratings[31, 77] = float("nan")
    loss, grads = mf_loss_and_grads(
        P, Q, bu, bi, mu, ratings, torch.ones(120, 140, dtype=torch.uint8), backend="native"
    )
    assert loss.isnan()
    assert grads.global_bias.isnan().all()
    for grad, index in (
        (grads.user_factors, 31),
        (grads.user_bias, 31),
        (grads.item_factors, 77),
        (grads.item_bias, 77),
    ):
        nan_rows = grad.reshape(len(grad), -1).isnan()
        assert nan_rows[index].all()
        assert nan_rows.sum() == nan_rows[index].numel()


@pytest.mark.parametrize("mask_dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_every_float8_weight_is_decoded(mask_dtype):
    mask = torch.arange(256, dtype=torch.int32).to(torch.uint8).view(mask_dtype).reshape(256, 1)
    parameters = torch.zeros(256, 1), torch.zeros(1, 1), torch.zeros(256), torch.zeros(1), torch.ones(1)
    _, grads = mf_loss_and_grads(*parameters, torch.zeros(256, 1), mask, reg=0.0, backend="native")
    expected = 2 * mask.float().square().flatten()
    torch.testing.assert_close(grads.user_bias, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("transposed", [False, True])
def test_weights_that_float32_cannot_hold_are_observed(transposed):
    P, Q, bu, bi, mu, *_ = random_problem(40, 50, 5, torch.float32, torch.float32, torch.bool)
    weights = torch.full((40, 50), 1e-300, dtype=torch.float64)
    weights = weights.T.contiguous().T if transposed else weights
    loss, _ = mf_loss_and_grads(P, Q, bu, bi, mu, torch.rand(40, 50), weights, reg=0.0, backend="native")
    assert loss == 0
    loss, _ = mf_loss_and_grads(P, Q, bu, bi, mu, torch.full((40, 50), float("nan")), weights, backend="native")
    assert loss.isnan()


@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_reaches_exactly_its_own_outputs(weight):
    arguments = random_problem(120, 140, 7, torch.float32, torch.float32, torch.float32, density=1.0)
    *_, ratings, mask = arguments
    ratings[31, 77], mask[31, 77] = 1, weight
    loss, grads = mf_loss_and_grads(*arguments, backend="native")
    assert not loss.isfinite()
    for grad, place in zip(grads, (31, 77, 31, 77, 0), strict=True):
        wrong = ~grad.reshape(len(grad), -1).isfinite()
        assert wrong[place].all()
        assert wrong.sum() == wrong[place].numel()


@pytest.mark.parametrize("block", [16, 64, 200])
def test_block_sparse_masks(block):
    arguments = random_problem(611, 733, 24, torch.float32, torch.float32, torch.uint8)
    blocks = torch.rand(611 // block + 1, 733 // block + 1) < 0.1
    observed = blocks.repeat_interleave(block, 0).repeat_interleave(block, 1)[:611, :733] & (torch.rand(611, 733) < 0.8)
    ratings = torch.where(observed, torch.rand(611, 733), float("nan"))
    for mask in (observed.to(torch.uint8), None, observed * torch.rand(611, 733)):
        case = (*arguments[:5], ratings, mask)
        assert_as_exact_as_autograd(*mf_loss_and_grads(*case, backend="native"), case)


def test_forward_only_is_the_loss_of_the_full_step():
    arguments = random_problem(211, 305, 30, torch.float32, torch.float64, torch.int32)
    loss, _ = mf_loss_and_grads(*arguments, backend="native")
    assert mf_loss(*arguments, backend="native") == loss
    exact, _ = oracle_loss_and_grads(*arguments, reg=0.0)
    assert mf_sse(*arguments, backend="native").item() == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_two_runs_are_bitwise_equal_at_any_number_of_threads(threads):
    before = torch.get_num_threads()
    arguments = random_problem(1011, 777, 17, torch.float32, torch.float32, torch.uint8)
    torch.set_num_threads(threads)
    try:
        runs = [mf_loss_and_grads(*arguments, backend="native") for _ in range(4)]
        assert_as_exact_as_autograd(*runs[0], arguments)
    finally:
        torch.set_num_threads(before)
    for loss, grads in runs[1:]:
        assert torch.equal(loss, runs[0][0])
        assert all(map(torch.equal, grads, runs[0][1]))
