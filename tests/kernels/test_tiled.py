"""The tiled PyTorch backend against the float64 oracle, in tiles so small that most entries lie at an edge."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kernels import backends, mf_loss_and_grads, mf_sse, tiled
from mfbench.correctness.gate import standard
from reference import oracle_loss_and_grads
from tests.problems import assert_right, draw_inputs, problems

pytestmark = pytest.mark.usefixtures("poisoned")
CPU_BACKENDS = [name for name in ("native", "torch", "interpret") if backends()[name].available]


@given(inputs=problems(), tile_items=st.integers(1, 50), tile_elements=st.integers(1, 600))
def test_any_problem_in_any_tiles(monkeypatch, inputs, tile_items, tile_elements):
    monkeypatch.setattr(tiled, "TILE_ITEMS", tile_items)
    monkeypatch.setattr(tiled, "TILE_ELEMENTS", tile_elements)
    assert_right(inputs, mf_loss_and_grads(*inputs, backend="torch"))
    exact = standard(inputs._replace(reg=0.0))
    sse = mf_sse(*inputs[:7], backend="torch").double().numpy()
    verdict = exact.judge([sse, *exact.exact[1:]])["loss"]  # relative to what predictions and ratings sum
    assert verdict.ok, verdict


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_accuracy_holds_at_any_scale(scale):
    inputs = draw_inputs(300, 200, 20, ratings_dtype=torch.float64)
    P, _, bu, bi, mu, ratings, *_ = inputs
    scaled = inputs._replace(
        user_factors=P * scale,
        user_bias=bu * scale,
        item_bias=bi * scale,
        global_bias=mu * scale,
        ratings=ratings * scale,
    )
    assert_right(scaled, mf_loss_and_grads(*scaled, backend="torch"))


@pytest.mark.parametrize("backend", [name for name in CPU_BACKENDS if name != "interpret"])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.float64, 1e-13)])
def test_long_sums_of_errors_of_one_sign_do_not_drift(backend, dtype, bound):
    n = 1 << 19
    drawn = draw_inputs(1, n, 2, dtype=dtype)
    like = drawn.item_bias.new_full((n,), 0.1) + 1e-6 * drawn.item_bias.flatten()
    inputs = drawn._replace(
        user_factors=1e-6 * drawn.user_factors, item_bias=like, ratings=torch.zeros(1, n), mask=torch.ones(1, n)
    )
    loss, grads = mf_loss_and_grads(*inputs, backend=backend)
    sse, expected = oracle_loss_and_grads(*inputs)
    assert loss.item() == pytest.approx(sse, rel=bound)
    _, _, d_user_bias, _, d_global_bias = expected
    assert grads.user_bias.item() == pytest.approx(d_user_bias.item(), rel=bound)
    assert grads.global_bias.item() == pytest.approx(d_global_bias.item(), rel=bound)


def test_whole_tiles_and_a_rest():
    inputs = draw_inputs(70, tiled.TILE_ITEMS + 300, 5)
    assert_right(inputs, mf_loss_and_grads(*inputs, backend="torch"))


def test_observed_nan_reaches_exactly_its_own_outputs(monkeypatch):
    monkeypatch.setattr(tiled, "TILE_ITEMS", 5)
    monkeypatch.setattr(tiled, "TILE_ELEMENTS", 20)
    inputs = draw_inputs(11, 13, 4, density=1.0)
    inputs.ratings[3, 8] = float("nan")
    loss, grads = mf_loss_and_grads(*inputs, backend="torch")
    assert loss.isnan()
    for grad, place in zip(grads, (3, 8, 3, 8, 0), strict=True):
        nan = grad.isnan().reshape(len(grad), -1)
        assert nan[place].all()
        assert nan.sum() == nan[place].numel()


class Allocations(TorchDispatchMode):
    """Record the bytes of every storage that is allocated."""

    def __init__(self, given):
        super().__init__()
        self.known = {tensor.untyped_storage().data_ptr() for tensor in given}
        self.bytes = [0]

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **kwargs or {})
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in self.known:
                self.bytes.append(tensor.untyped_storage().nbytes())
        return result


@pytest.mark.parametrize("ratings_dtype", [torch.float64, torch.float16, torch.uint8])
@pytest.mark.parametrize("mask_dtype", [torch.uint8, torch.float64, None])
def test_no_temporary_beyond_a_tile(ratings_dtype, mask_dtype):
    inputs = draw_inputs(700, 900, 4, ratings_dtype=ratings_dtype, mask_dtype=mask_dtype)
    given = inputs[: 6 if mask_dtype is None else 7]
    with Allocations(given) as allocations:
        mf_loss_and_grads(*inputs, backend="torch")
    assert max(allocations.bytes) <= 8 * tiled.TILE_ELEMENTS  # a float64 rating is no reason for more than 8 bytes
    with Allocations(given) as allocations:
        (inputs.ratings.double() * 2).sum()
    assert max(allocations.bytes) >= 8 * inputs.ratings.numel()  # it would have been seen


@pytest.mark.parametrize("backend", CPU_BACKENDS)
@pytest.mark.parametrize("transposed", [False, True])
def test_offsets_beyond_2_to_the_31(backend, transposed):
    """Three rows (or columns) of a 2.1 GB buffer, of which only a few pages are ever touched."""
    few, many, apart = 3, 70, (1 << 30) + 5
    inputs = draw_inputs(few, many, 4, ratings_dtype=torch.uint8, mask_dtype=torch.uint8)
    far = {}
    for name in ("ratings", "mask"):
        buffer = torch.from_numpy(np.zeros((few - 1) * apart + many, dtype=np.uint8))  # pages appear when written
        far[name] = buffer.as_strided((few, many), (apart, 1)).copy_(getattr(inputs, name))
    inputs = inputs._replace(**far)
    if transposed:
        P, Q, bu, bi, *_ = inputs
        inputs = inputs._replace(
            user_factors=Q, item_factors=P, user_bias=bi, item_bias=bu, ratings=far["ratings"].T, mask=far["mask"].T
        )
    assert_right(inputs, mf_loss_and_grads(*inputs, backend=backend))


@pytest.mark.skipif("native" not in CPU_BACKENDS, reason=backends()["native"].reason or "available")
def test_more_than_2_to_the_31_ratings():
    """46,400 x 46,400, every rating read: one row of ratings repeated, and the squared errors summed by hand."""
    m = n = 46_400
    assert m * n > 2**31
    P, _, bu, _, mu, *_ = draw_inputs(m, 1, 1)
    _, Q, _, bi, *_ = draw_inputs(1, n, 1)
    row, seen = torch.rand(1, n) * 5, torch.rand(1, n) < 0.5
    sse = mf_sse(P, Q, bu, bi, mu, row.expand(m, n), seen.expand(m, n), backend="native").item()
    # sum over i and observed j of (p_i q_j + b_i + c_j)^2, with c_j = bi_j + mu - r_j
    p, b = P[:, 0].double(), bu[:, 0].double()
    q, c = Q[seen[0], 0].double(), (bi[:, 0].double() + mu.double() - row[0].double())[seen[0]]
    squares = p.square().sum() * q.square().sum() + len(q) * b.square().sum() + m * c.square().sum()
    products = (p @ b) * q.sum() + p.sum() * (q @ c) + b.sum() * c.sum()
    assert sse == pytest.approx((squares + 2 * products).item(), rel=1e-6)
