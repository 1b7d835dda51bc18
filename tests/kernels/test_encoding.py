"""Encoded ratings lose nothing, and give the step the same results as the ratings before encoding."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given

from kernels import EncodedRatings, backends, encode_ratings, mf_loss, mf_loss_and_grads, mf_sse
from tests.problems import RATINGS, assert_right, draw_inputs, problems

BACKENDS = [name for name in ("auto", "torch", "interpret") if name == "auto" or backends()[name].available]
NAN, INF = float("nan"), float("inf")


def observed_in(inputs):
    return ~inputs.ratings.isnan() if inputs.mask is None else inputs.mask.bool()


def spelled_out(inputs):
    """Return the inputs with float64 ratings, NaN where unobserved: everything that an encoding has to keep."""
    return inputs._replace(ratings=inputs.ratings.double().masked_fill(~observed_in(inputs), NAN), mask=None)


def encoded(inputs):
    return inputs._replace(ratings=encode_ratings(inputs.ratings, inputs.mask, layout="dense"), mask=None)


def results(inputs, backend):
    """Return the outputs of all three functions."""
    parameters = [parameter.clone().requires_grad_() for parameter in inputs[:5]]
    arguments = (*parameters, *inputs[5:])
    differentiated = mf_loss(*arguments, backend=backend)
    differentiated.backward()
    loss, grads = mf_loss_and_grads(*arguments, backend=backend)
    sse = mf_sse(*arguments[:7], backend=backend)
    return [loss, *grads, sse, differentiated.detach(), *(parameter.grad for parameter in parameters)]


def without_weights(inputs):
    """The same problem, its float mask of zeros and ones."""
    return inputs._replace(mask=(inputs.mask != 0).to(inputs.mask.dtype)) if inputs.weighted else inputs


@given(inputs=problems(dtypes=(torch.float64,)).map(without_weights))
def test_nothing_is_lost(inputs):
    """In float64, where codes are decoded without rounding, all results are bitwise the same."""
    for got, expected in zip(results(encoded(inputs), "torch"), results(spelled_out(inputs), "torch"), strict=True):
        assert torch.equal(got, expected)


@given(inputs=problems(dtypes=(torch.float32,)).map(without_weights))
def test_right_in_float32(inputs):
    assert_right(inputs, mf_loss_and_grads(*encoded(inputs)))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("ratings_dtype", RATINGS)
@pytest.mark.parametrize("half_stars", [True, False])
def test_right_on_every_backend(backend, ratings_dtype, half_stars):
    inputs = draw_inputs(67, 71, 5, ratings_dtype=ratings_dtype, mask_dtype=torch.uint8)
    if half_stars:
        inputs = inputs._replace(ratings=(torch.randint(1, 11, (67, 71)) / 2).to(ratings_dtype))
    assert_right(inputs, mf_loss_and_grads(*encoded(inputs), backend=backend))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("ratings_dtype", "encoding"),
    [
        *[(dtype, "uint8-code") for dtype in RATINGS],
        *[(dtype, "float64-nan") for dtype in RATINGS],
        *[(dtype, "bfloat16-nan") for dtype in (torch.float64, torch.uint8)],
        *[(dtype, "float16-nan") for dtype in (torch.float32, torch.int8)],
        *[(dtype, "float32-nan") for dtype in (torch.float32, torch.bfloat16, torch.int8)],
        (torch.uint8, "uint8-bits"),
        (torch.int8, "int8-bits"),
    ],
)
def test_every_encoding_by_name(backend, ratings_dtype, encoding):
    inputs = draw_inputs(67, 131, 5, mask_dtype=torch.int64)
    ratings = torch.randint(-3, 100, (67, 131)) / 4
    if not ratings_dtype.is_floating_point:
        ratings = ratings.floor() if ratings_dtype.is_signed else ratings.floor().abs()
    inputs = inputs._replace(ratings=ratings.to(ratings_dtype))
    result = encode_ratings(inputs.ratings, inputs.mask, encoding)
    assert result.encoding == encoding
    assert_right(inputs, mf_loss_and_grads(*inputs[:5], result, backend=backend))


@pytest.mark.parametrize(
    ("ratings", "encoding"),
    [
        (torch.tensor([[1.0, 257.0]]), "bfloat16-nan"),
        (torch.tensor([[1.0, 70_000.0]]), "float16-nan"),
        (torch.tensor([[0.1]], dtype=torch.float64), "float32-nan"),
        (torch.tensor([[0.0, 1.0, 255.0]]), "uint8-code"),  # 256 levels
        (torch.tensor([[0.0, 1.0, INF]]), "uint8-code"),
    ],
)
def test_an_encoding_that_would_lose_something_is_refused(ratings, encoding):
    with pytest.raises(ValueError, match=rf"^encoding: expected one that loses nothing .*, got '{encoding}'"):
        encode_ratings(ratings, None, encoding)


@pytest.mark.parametrize("backend", BACKENDS)
def test_255_levels_are_the_most_that_codes_hold(backend):
    for levels, encoding in ((255, "uint8-code"), (256, "bfloat16-nan")):
        ratings = torch.arange(levels).reshape(1, -1) / 2
        assert encode_ratings(ratings).encoding == encoding
        parameters = draw_inputs(1, levels, 3)[:5]
        got, _ = mf_loss_and_grads(*parameters, encode_ratings(ratings), backend=backend)
        expected, _ = mf_loss_and_grads(*parameters, ratings, backend=backend)
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["float8-nan", "uint8-bits", "int8-bits"])
def test_an_unknown_encoding_is_refused(name):
    with pytest.raises(ValueError, match=rf"^encoding: expected one of uint8-code, bfloat16-nan, .*, got '{name}'"):
        encode_ratings(torch.ones(2, 3), None, name)


@pytest.mark.parametrize(
    ("needed", "came_as"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.float64),
        (torch.float16, torch.float64),
        (torch.float32, torch.float64),
        (torch.float64, torch.float64),
    ],
)
def test_smallest_float_that_loses_nothing(needed, came_as):
    ratings = torch.randn(60, 50, dtype=torch.float64).clamp_(-3, 3)
    ratings = torch.where(ratings.abs() < 0.01, 1.0, ratings).to(needed).to(came_as)  # float16's normal range
    mask = torch.rand(60, 50) < 0.5
    result = encode_ratings(ratings, mask)
    assert isinstance(result, EncodedRatings)
    assert result.values.dtype == needed
    assert torch.equal(result.values[mask].to(came_as), ratings[mask])


@pytest.mark.parametrize("ratings_dtype", RATINGS)
def test_half_stars_take_one_byte(ratings_dtype):
    ratings = (torch.randint(1, 11, (60, 50)) / 2).to(ratings_dtype)
    assert encode_ratings(ratings, torch.rand(60, 50) < 0.5).encoding == "uint8-code"


def test_unobserved_ratings_do_not_affect_the_encoding():
    ratings, mask = torch.full((6, 5), 2.5), torch.ones(6, 5)
    ratings[2, 3], mask[2, 3] = 0.1234567, 0
    ratings[4, 1], mask[4, 1] = INF, 0
    assert encode_ratings(ratings, mask).encoding == "uint8-code"


def test_too_large_for_float16_but_not_for_float32():
    ratings = torch.tensor([[70_001.0, 1.0]])
    parameters = draw_inputs(1, 2, 3)[:5]
    got, _ = mf_loss_and_grads(*parameters, encode_ratings(ratings))
    expected, _ = mf_loss_and_grads(*parameters, ratings)
    assert torch.equal(got, expected)


@pytest.mark.parametrize("ratings_dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_an_observed_nan_is_refused(ratings_dtype):
    ratings = torch.rand(6, 5).to(ratings_dtype)
    ratings[2, 3] = NAN
    with pytest.raises(ValueError, match=r"^ratings: expected no NaN at an observed entry"):
        encode_ratings(ratings, torch.ones(6, 5, dtype=torch.uint8))
    mask = torch.ones(6, 5)
    mask[2, 3] = 0
    assert_right_after_encoding(ratings, mask)
    assert_right_after_encoding(ratings, None)  # here NaN says 'missing'


def assert_right_after_encoding(ratings, mask):
    inputs = draw_inputs(6, 5, 3)._replace(ratings=ratings, mask=mask)
    assert_right(inputs, mf_loss_and_grads(*encoded(inputs)))


def test_an_observed_infinity_stays():
    ratings = torch.full((6, 5), 2.5)
    ratings[2, 3] = INF
    assert mf_sse(*draw_inputs(6, 5, 3)[:5], encode_ratings(ratings)) == INF


@pytest.mark.parametrize("shape", [(0, 5, 3), (4, 0, 3), (4, 5, 0)])
def test_empty_sizes(shape):
    inputs = draw_inputs(*shape, mask_dtype=torch.int8)
    assert_right(inputs, mf_loss_and_grads(*encoded(inputs)))


@pytest.mark.parametrize(
    ("ratings", "mask", "error", "message"),
    [
        ([[1.0]], None, TypeError, r"^ratings: expected a torch.Tensor, got list"),
        (torch.ones(2, 3), [[1] * 3] * 2, TypeError, r"^mask: expected a torch.Tensor, got list"),
        (torch.ones(2, 3, dtype=torch.int16), None, TypeError, r"^ratings: expected one of .*, got torch.int16"),
        (torch.ones(2, 3).to_sparse(), torch.ones(2, 3), ValueError, r"^mask: expected None, since every stored entry"),
        (torch.ones(2, 3), torch.ones(3, 2), ValueError, r"^mask: expected shape \(2, 3\) as ratings, got \(3, 2\)"),
    ],
)
def test_bad_arguments_are_named(ratings, mask, error, message):
    with pytest.raises(error, match=message):
        encode_ratings(ratings, mask)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize(
    ("values", "encoding"),
    [
        ([1, 2, 5], "uint8-code"),
        ([10**6, 10**6 + 7, 10**6 + 14], "uint8-code"),
        (list(range(256)), "uint8-bits"),
        (list(range(-128, 128)), "int8-bits"),
        (list(range(-1, 256)), "bfloat16-nan"),
        ([0, *range(1, 2048, 2)], "float16-nan"),
        ([*range(0, 1 << 24, 1 << 12), (1 << 24) - 1], "float32-nan"),
        ([*range(0, 1 << 24, 1 << 12), (1 << 24) + 1], "float64-nan"),
    ],
)
def test_wide_integers_are_encoded_in_the_fewest_bytes(values, encoding, dtype):
    ratings = torch.tensor([values, values[::-1]], dtype=dtype)
    mask = torch.ones_like(ratings)
    mask[1, ::2], ratings[1, ::2] = 0, torch.iinfo(dtype).max  # unobserved entries may hold anything
    mask[1, -1] = 0
    encoded = encode_ratings(ratings, mask)
    assert encoded.encoding == encoding
    inputs = draw_inputs(2, len(values), 3, torch.float64)._replace(ratings=ratings, mask=mask)
    for backend in BACKENDS:
        got = mf_loss_and_grads(*inputs[:5], encoded, reg=inputs.reg, backend=backend)
        exact = inputs._replace(ratings=ratings.double())
        for value, expected in zip([got[0], *got[1]], results(exact, "torch")[:6], strict=True):
            torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)


def test_integers_that_float64_would_round_are_refused():
    ratings, mask = torch.tensor([[1, 2**53 + 1, 2**62]]), torch.tensor([[1, 1, 1]])
    with pytest.raises(ValueError, match=r"^ratings: expected integers that float64 holds .*, got 9007199254740993"):
        encode_ratings(ratings, mask)
    mask[0, 1] = 0
    assert encode_ratings(ratings, mask).encoding == "uint8-code"


def test_the_ratings_given_stay_as_they_were():
    ratings, mask = torch.rand(6, 5), torch.rand(6, 5) < 0.5
    before = ratings.clone()
    encode_ratings(ratings, mask)
    assert torch.equal(ratings, before)
