"""Masks of a float dtype hold weights: the loss and gradients of the notebook's own expressions, on every backend."""

from __future__ import annotations

import pytest
import torch

from kernels import backends, encode_ratings, mf_loss, mf_loss_and_grads, mf_sse
from tests.problems import LAYOUTS, assert_right, draw_inputs

INF, NAN = float("inf"), float("nan")
BACKENDS = [name for name in ("native", "torch", "interpret") if backends()[name].available]
WEIGHTS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)


def notebook(p, q, bu, bi, u, rating_matrix, mask_matrix, reg):
    """The loss, as the notebook writes it."""
    r_predict = torch.mm(p, q.t()) + bu + bi.t() + u
    return torch.sum((r_predict * mask_matrix - rating_matrix * mask_matrix).pow(2)) + reg * (
        bu.pow(2).sum() + bi.pow(2).sum() + p.pow(2).sum() + q.pow(2).sum()
    )


def small(mask_dtype=torch.float64):
    """A problem of 8 x 9 in float64 with finite ratings, as leaves that require gradients, and the rest."""
    inputs = draw_inputs(8, 9, 3, torch.float64, torch.float64, mask_dtype)
    leaves = [parameter.clone().requires_grad_() for parameter in inputs[:5]]
    return leaves, inputs.ratings.nan_to_num(1.0, 2.0, 3.0), inputs.mask, inputs.reg


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradcheck(backend):
    leaves, ratings, mask, reg = small()
    assert torch.autograd.gradcheck(lambda *p: mf_loss(*p, ratings, mask, reg, backend=backend), leaves)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mask_dtype", WEIGHTS)
def test_loss_and_gradients_are_the_notebooks(backend, mask_dtype):
    leaves, ratings, mask, reg = small(mask_dtype)
    loss = notebook(*leaves, ratings, mask.double(), reg)
    expected = torch.autograd.grad(loss, leaves)
    got_loss, grads = mf_loss_and_grads(*leaves, ratings, mask, reg, backend=backend)
    torch.testing.assert_close(got_loss, loss.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(list(grads), list(expected), rtol=1e-11, atol=1e-11)
    sse = mf_sse(*leaves, ratings, mask, backend=backend)
    torch.testing.assert_close(sse, notebook(*leaves, ratings, mask.double(), 0.0).detach(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mask_dtype", WEIGHTS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_weights_of_any_dtype_and_strides(backend, mask_dtype, layout):
    inputs = draw_inputs(37, 53, 5, mask_dtype=mask_dtype, layouts=("contiguous", "contiguous", layout))
    inputs = inputs._replace(ratings=inputs.ratings.where(inputs.mask != 0, NAN))
    assert_right(inputs, mf_loss_and_grads(*inputs, backend=backend))


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "interpret"])
@pytest.mark.parametrize("mask_dtype", FLOAT8)
def test_float8_weights(backend, mask_dtype):
    inputs = draw_inputs(37, 53, 5, mask_dtype=mask_dtype)
    assert_right(inputs, mf_loss_and_grads(*inputs, backend=backend))


@pytest.mark.skipif("interpret" not in BACKENDS, reason="Triton is not installed")
@pytest.mark.parametrize("mask_dtype", FLOAT8)
def test_float8_weights_are_refused_where_they_cannot_be_decoded(mask_dtype):
    inputs = draw_inputs(7, 8, 3, mask_dtype=mask_dtype)
    with pytest.raises(RuntimeError, match=rf"'interpret'.*masks of {mask_dtype}; pass mask.half\(\)"):
        mf_loss_and_grads(*inputs, backend="interpret")


@pytest.mark.parametrize("backend", BACKENDS)
def test_zeros_and_ones_are_a_binary_mask(backend):
    inputs = draw_inputs(37, 53, 5)
    expected = mf_loss_and_grads(*inputs, backend=backend)
    weights = torch.where(inputs.mask, 1.0, -0.0)  # -0.0 is a zero as well
    got = mf_loss_and_grads(*inputs._replace(mask=weights), backend=backend)
    torch.testing.assert_close([got[0], *got[1]], [expected[0], *expected[1]], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("rating", "weight"), [(NAN, 0.5), (1.0, NAN), (1.0, INF), (INF, -2.0)])
def test_an_observed_error_that_is_not_finite_reaches_exactly_its_own_outputs(backend, rating, weight):
    inputs = draw_inputs(70, 90, 4, mask_dtype=torch.float32)
    inputs.ratings[31, 77], inputs.mask[31, 77] = rating, weight
    loss, grads = mf_loss_and_grads(*inputs, backend=backend)
    assert not loss.isfinite()
    for grad, place in zip(grads, (31, 77, 31, 77, 0), strict=True):
        wrong = ~grad.reshape(len(grad), -1).isfinite()
        assert wrong[place].all()
        assert wrong.sum() == wrong[place].numel()


@pytest.mark.parametrize("mask_dtype", [*WEIGHTS, *FLOAT8])
def test_only_a_binary_mask_can_be_encoded(mask_dtype):
    ratings, observed = torch.randint(1, 11, (20, 30)) / 2, torch.rand(20, 30) < 0.5
    encoded = encode_ratings(ratings, observed.to(mask_dtype))
    assert torch.equal(encoded.values, encode_ratings(ratings, observed).values)
    for weight in (0.5, -1.0, NAN):
        weights = observed.float()
        weights[3, 4] = weight
        with pytest.raises(ValueError, match=rf"^mask: expected 0 and 1, since .* cannot carry weights, got {weight};"):
            encode_ratings(ratings, weights.to(mask_dtype))


def test_the_loss_is_not_differentiated_in_the_weights():
    leaves, ratings, mask, reg = small()
    with pytest.raises(ValueError, match=r"^mask: expected no requires_grad"):
        mf_loss(*leaves, ratings, mask.requires_grad_(), reg)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("weight", [65504.0, 6e-8])
def test_the_largest_and_the_smallest_weight_of_half_precision(backend, weight):
    """Their squares are beyond float16: 4e9 and 4e-15."""
    inputs = draw_inputs(37, 53, 5)
    weights = torch.where(inputs.mask, weight, 0.0).half()
    assert weights[inputs.mask].isfinite().all()
    assert weights[inputs.mask].all()
    assert_right(inputs._replace(mask=weights), mf_loss_and_grads(*inputs._replace(mask=weights), backend=backend))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("weight", [1e-50, -1e-300, 5e-324])
def test_a_weight_that_float32_rounds_to_zero_is_still_observed(backend, weight):
    """As from exp(-age): only 0 itself marks an unobserved rating."""
    inputs = draw_inputs(20, 30, 3, mask_dtype=torch.float64)
    inputs.mask[3, 4], inputs.ratings[3, 4] = weight, 1.0
    assert_right(inputs, mf_loss_and_grads(*inputs, backend=backend))
    inputs.ratings[3, 4] = NAN
    loss, grads = mf_loss_and_grads(*inputs, backend=backend)
    assert loss.isnan()
    assert [
        grad.reshape(len(grad), -1)[place].isnan().all() for grad, place in zip(grads, (3, 4, 3, 4, 0), strict=True)
    ]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("ratings_dtype", [torch.uint8, torch.int8])
def test_confidences_of_counts(backend, ratings_dtype):
    """Implicit feedback (Hu, Koren and Volinsky, 2008): every place has a weight, and the ratings are whole numbers."""
    counts = draw_inputs(37, 53, 5, ratings_dtype=ratings_dtype, mask_dtype=torch.uint8)
    plays = counts.ratings * (counts.mask != 0)
    inputs = counts._replace(ratings=(plays > 0).to(ratings_dtype), mask=1 + 40 * plays.float())
    assert_right(inputs, mf_loss_and_grads(*inputs, backend=backend))


def test_weights_are_those_of_the_call_under_compile():
    """Compiled once; other weights of the same shape are not constants of the compiled code."""
    inputs = draw_inputs(37, 53, 5, mask_dtype=torch.float32)
    compiled = torch.compile(mf_loss, backend="aot_eager", fullgraph=True)
    for factor in (1.0, -0.5, 0.0):
        weighted = inputs._replace(mask=factor * inputs.mask)
        assert compiled(*weighted) == mf_loss(*weighted)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_batch_of_weights(backend):
    """As of bootstrap samples, each rating weighing as often as it was drawn."""
    leaves, ratings, mask, reg = small()
    parameters = [leaf.detach() for leaf in leaves]
    draws = torch.poisson(torch.ones(4, *mask.shape, dtype=torch.float64), torch.Generator().manual_seed(1))
    batch = torch.func.vmap(lambda weights: mf_loss(*parameters, ratings, weights, reg, backend=backend))(draws)
    expected = [notebook(*parameters, ratings, weights, reg) for weights in draws]
    torch.testing.assert_close(batch, torch.stack(expected), rtol=1e-12, atol=0)
