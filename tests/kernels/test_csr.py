"""Sparse ratings: layouts of PyTorch, encodings, bad indices, and the PyTorch backend against the densified problem."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernels import EncodedRatings, backends, csr, encode_ratings, mf_loss, mf_loss_and_grads, mf_sse
from mfbench.problems.inputs import Inputs
from tests.problems import RATINGS, assert_right, draw_inputs

warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state")
BACKENDS = [name for name in ("native", "torch") if backends()[name].available]
CHECKED = [*BACKENDS, *(name for name in ("interpret",) if backends()[name].available)]
INDEX_DTYPES = (torch.int32, torch.int64)


def sparse_of(inputs: Inputs, index_dtype: torch.dtype = torch.int64, shuffled: bool = False, seed: int = 0):
    """Return the observed ratings as a CSR tensor, in rising or in any order of a row's columns."""
    observed = ~inputs.ratings.isnan() if inputs.mask is None else inputs.mask != 0
    m, n = observed.shape
    order = torch.rand(m, n, generator=torch.Generator().manual_seed(seed)).argsort(1)
    if not shuffled:
        order = torch.arange(n).expand(m, n)
    kept = observed.gather(1, order)
    rows = torch.zeros(m + 1, dtype=index_dtype)
    rows[1:] = observed.sum(1).cumsum(0)
    return torch.sparse_csr_tensor(rows, order[kept].to(index_dtype), inputs.ratings.gather(1, order)[kept], (m, n))


def csr_of(rows, columns, values=None, shape=(2, 3), dtype=torch.int64):
    """Return a CSR tensor with these indices, right or wrong."""
    values = torch.ones(len(columns)) if values is None else values
    return torch.sparse_csr_tensor(
        torch.tensor(rows, dtype=dtype), torch.tensor(columns, dtype=dtype), values, shape, check_invariants=False
    )


def parameters_of(m=2, n=3, rank=4):
    return draw_inputs(m, n, rank)[:5]


@st.composite
def sparse_problems(draw, max_users: int = 60, max_items: int = 90):
    inputs = draw_inputs(
        m=draw(st.integers(1, max_users)),
        n=draw(st.integers(1, max_items)),
        rank=draw(st.one_of(st.integers(1, 40), st.sampled_from([63, 64, 65, 130]))),
        dtype=draw(st.sampled_from([torch.float32, torch.float64])),
        ratings_dtype=draw(st.sampled_from(RATINGS)),
        density=draw(st.sampled_from((0.0, 0.02, 0.3, 1.0))),
        layouts=("transposed" if draw(st.booleans()) else "contiguous", "contiguous", "contiguous"),
        columns=draw(st.booleans()),
        seed=draw(st.integers(0, 2**31)),
        reg=draw(st.sampled_from((0.0, 0.1))),
    )
    empty = draw(st.sampled_from(("none", "rows", "columns")))
    if empty == "rows":
        inputs.mask[::2] = False
    if empty == "columns":
        inputs.mask[:, ::2] = False
    index_dtype, shuffled = draw(st.sampled_from(INDEX_DTYPES)), draw(st.booleans())
    return inputs, sparse_of(inputs, index_dtype, shuffled, seed=draw(st.integers(0, 99)))


@pytest.mark.parametrize("backend", BACKENDS)
@given(problem=sparse_problems())
def test_right_for_any_shape_dtype_and_order(backend, problem):
    inputs, ratings = problem
    result = mf_loss_and_grads(*inputs[:5], ratings, reg=inputs.reg, backend=backend)
    assert_right(inputs, result)
    loss = mf_loss(*inputs[:5], ratings, reg=inputs.reg, backend=backend)
    assert loss.item() == pytest.approx(result[0].item(), rel=1e-6)
    encoded = encode_ratings(ratings, layout="sparse")
    assert_right(inputs, mf_loss_and_grads(*inputs[:5], encoded, reg=inputs.reg, backend=backend))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("m_and_n", [(1, 3000), (3000, 1), (3, 5000), (2500, 40)])
def test_long_rows_and_columns(backend, m_and_n):
    inputs = draw_inputs(*m_and_n, 17, density=0.9)
    assert_right(inputs, mf_loss_and_grads(*inputs[:5], sparse_of(inputs), reg=inputs.reg, backend=backend))


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_user_with_half_of_all_ratings(backend):
    inputs = draw_inputs(400, 4000, 9, density=0.002)
    inputs.mask[200] = True
    inputs.ratings[200] = 3
    assert_right(inputs, mf_loss_and_grads(*inputs[:5], sparse_of(inputs), reg=inputs.reg, backend=backend))


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_stored_entry_is_observed(backend):
    """A stored 0 is a rating of 0; a stored NaN reaches the outputs that it belongs to, and no other."""
    ratings = csr_of([0, 2, 3, 4], [0, 3, 1, 2], torch.tensor([0.0, 4.0, float("nan"), 2.0]), (3, 4))
    parameters = parameters_of(3, 4, 5)
    for given_ratings in (ratings, encode_ratings(ratings, layout="sparse")):
        loss, grads = mf_loss_and_grads(*parameters, given_ratings, backend=backend)
        assert loss.isnan()
        assert grads.user_bias.flatten().isnan().tolist() == [False, True, False]
        assert grads.item_factors.isnan().all(1).tolist() == [False, True, False, False]
        assert grads.user_factors.isnan().any(1).tolist() == [False, True, False]
    zero = csr_of([0, 1, 1], [1], torch.tensor([0.0]))
    P, Q, bu, bi, mu = parameters_of()
    expected = (P[0] @ Q[1] + bu[0] + bi[1] + mu).square()
    assert mf_sse(P, Q, bu, bi, mu, zero, backend=backend).item() == pytest.approx(expected.item(), rel=1e-5)


BAD = [
    ([0, 2, 2], [1, 1], "expected every column once in a row, got 1 twice in row 0"),
    ([0, 0, 3], [2, 0, 2], "expected every column once in a row, got 2 twice in row 1"),
    ([0, 1, 2], [1, 3], "expected columns from 0 to 2, got 3 in row 1"),
    ([0, 1, 2], [-1, 1], "expected columns from 0 to 2, got -1 in row 0"),
    ([0, 1, 2], [1, 1 << 30], f"expected columns from 0 to 2, got {1 << 30} in row 1"),
    ([0, 2, 1], [0, 1], "expected row pointers that rise from 0 to 2, .*; got 2 to 1 for row 1"),
    ([1, 1, 2], [0, 1], "expected row pointers that rise from 0 to 2, .*; got 1 to 1 for row 0"),
    ([0, 1, 1], [0, 1], "expected row pointers that rise from 0 to 2, .*; got 1 to 1 for row 1"),
    ([0, 9, 2], [0, 1], "expected row pointers that rise from 0 to 2, .*; got 0 to 9 for row 0"),
    ([-5, 1, 2], [0, 1], "expected row pointers that rise from 0 to 2, .*; got -5 to 1 for row 0"),
]


@pytest.mark.parametrize("dtype", INDEX_DTYPES)
@pytest.mark.parametrize(("rows", "columns", "message"), BAD)
def test_bad_indices_are_refused(rows, columns, message, dtype):
    ratings = csr_of(rows, columns, dtype=dtype)
    for backend in CHECKED:
        for function in (mf_loss, mf_loss_and_grads, mf_sse):
            with pytest.raises(ValueError, match=rf"^ratings: {message}"):
                function(*parameters_of(), ratings, backend=backend)
    with pytest.raises(ValueError, match=rf"^ratings: {message}"):
        encode_ratings(ratings)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("place", [0, 1, 40_000, 99_999])
@pytest.mark.parametrize("fault", ["below", "above", "repeated"])
def test_a_bad_index_anywhere_is_found(backend, place, fault):
    """In any of the parts into which the check is divided, and at their ends."""
    columns = torch.arange(100_000).remainder(1000).view(100, 1000)
    columns = columns.flatten().clone()
    columns[place] = {"below": -1, "above": 1000, "repeated": columns[place - 1 if place % 1000 else place + 1]}[fault]
    ratings = torch.sparse_csr_tensor(
        torch.arange(101) * 1000, columns, torch.ones(100_000), (100, 1000), check_invariants=False
    )
    with pytest.raises(ValueError, match=rf"^ratings: expected .* in row {place // 1000}$"):
        mf_sse(*parameters_of(100, 1000, 2), ratings, backend=backend)


@pytest.mark.parametrize("backend", CHECKED)
def test_encoded_ratings_that_were_changed_are_checked_again(backend):
    inputs = draw_inputs(20, 30, 3, density=0.3)
    encoded = encode_ratings(inputs.ratings, inputs.mask, layout="sparse")
    assert_right(inputs, mf_loss_and_grads(*inputs[:5], encoded, reg=inputs.reg, backend=backend))
    encoded.columns[3] = 60_000
    with pytest.raises(ValueError, match="expected columns from 0 to 29, got 60000"):
        mf_loss(*inputs[:5], encoded, backend=backend)
    with pytest.raises(ValueError, match="expected columns"):
        mf_loss(*inputs[:5], encoded._replace(columns=torch.arange(encoded.observed)), backend=backend)


def test_encoded_ratings_are_checked_once(monkeypatch):
    inputs = draw_inputs(20, 30, 3, density=0.3)
    checks = []
    monkeypatch.setattr(csr, "columns_rise", lambda _, check=csr.columns_rise: checks.append(1) or check(_))
    encoded, raw = encode_ratings(inputs.ratings, inputs.mask, layout="sparse"), sparse_of(inputs)
    for _ in range(3):
        mf_loss(*inputs[:5], encoded, backend="torch")
    assert len(checks) <= 1
    for _ in range(3):
        mf_loss(*inputs[:5], raw, backend="torch")
    assert len(checks) >= 3


@pytest.mark.parametrize("shape", [(0, 5, 3), (4, 0, 3), (4, 5, 0), (0, 0, 3), (4, 5, 3)])
@pytest.mark.parametrize("backend", CHECKED)
def test_empty_matrices(shape, backend):
    inputs = draw_inputs(*shape, density=0.0)
    ratings = csr_of([0] * (shape[0] + 1), [], torch.ones(0), shape[:2])
    for given_ratings in (ratings, encode_ratings(ratings), encode_ratings(ratings, layout="sparse")):
        assert_right(inputs, mf_loss_and_grads(*inputs[:5], given_ratings, reg=inputs.reg, backend=backend))


def test_a_mask_beside_sparse_ratings_is_refused():
    ratings, mask = csr_of([0, 1, 2], [0, 1]), torch.ones(2, 3)
    for call in (
        lambda: mf_loss(*parameters_of(), ratings, mask),
        lambda: encode_ratings(ratings, mask),
        lambda: encode_ratings(ratings.to_sparse_coo(), mask),
    ):
        with pytest.raises(ValueError, match=r"^mask: expected None, since every stored entry .*; got a mask"):
            call()


@pytest.mark.parametrize("convert", [torch.Tensor.to_sparse_coo, torch.Tensor.to_sparse_csc])
def test_other_layouts_are_left_to_encode_ratings(convert):
    inputs = draw_inputs(20, 30, 3, density=0.3)
    ratings = convert(sparse_of(inputs))
    message = r"^ratings: expected a dense tensor or torch.sparse_csr, got torch.sparse_.*; encode_ratings accepts it"
    with pytest.raises(TypeError, match=message):
        mf_loss(*inputs[:5], ratings)
    for layout in ("dense", "sparse"):
        encoded = encode_ratings(ratings, layout=layout)
        assert_right(inputs, mf_loss_and_grads(*inputs[:5], encoded, reg=inputs.reg))


def test_repeated_triplets_are_refused_not_summed():
    ratings = torch.sparse_coo_tensor([[0, 1, 1], [2, 0, 0]], [1.0, 2, 3], (2, 3))
    with pytest.raises(ValueError, match="expected every column once in a row, got 0 twice in row 1"):
        encode_ratings(ratings)


@pytest.mark.parametrize(
    ("ratings", "message"),
    [
        (csr_of([0, 1, 2], [0, 1], shape=(2, 5)), r"expected shape \(2, 3\), got \(2, 5\)"),
        (torch.ones(2, 2, 3).to_sparse_csr(), r"expected a sparse matrix of numbers, got shape \(2, 2, 3\)"),
        (csr_of([0, 1, 2], [0, 1]).to("meta"), "expected device cpu as user_factors, got meta"),
    ],
)
def test_wrong_shapes_and_devices(ratings, message):
    with pytest.raises(ValueError, match=rf"^ratings: {message}"):
        mf_loss(*parameters_of(), ratings)


@pytest.mark.parametrize("dtype", [torch.int16, torch.complex64])
def test_wrong_dtypes(dtype):
    with pytest.raises(TypeError, match=r"^ratings: expected one of float64, .*, got torch"):
        mf_loss(*parameters_of(), csr_of([0, 1, 2], [0, 1], torch.ones(2, dtype=dtype)))


@pytest.mark.parametrize("source", ["dense", "csr", "coo", "csc"])
@pytest.mark.parametrize("encoding", [None, "uint8-code", "float32", "float64"])
def test_encodings_lose_nothing(source, encoding):
    inputs = draw_inputs(50, 70, 3, density=0.1)
    inputs = inputs._replace(ratings=torch.where(inputs.mask, torch.randint(1, 11, (50, 70)) / 2, float("nan")))
    ratings, mask = sparse_of(inputs), None
    if source == "dense":
        ratings, mask = inputs.ratings, inputs.mask
    elif source != "csr":
        ratings = getattr(ratings, f"to_sparse_{source}")()
    encoded = encode_ratings(ratings, mask, encoding, "sparse")
    assert (encoded.layout, encoded.shape, encoded.observed) == ("sparse", (50, 70), int(inputs.mask.sum()))
    assert encoded.encoding == (encoding or "uint8-code")
    values = encoded.values.double()
    if encoded.levels is not None:
        values = values * encoded.levels[0] + encoded.levels[1]
    dense = torch.sparse_csr_tensor(encoded.rows, encoded.columns.long(), values, (50, 70)).to_dense()
    assert torch.equal(dense, inputs.ratings.double().nan_to_num(0))
    assert encoded.columns.dtype == torch.uint16


def test_bytes_per_rating():
    m, n = 100, 70_000
    counts = torch.full((m,), 300)
    columns = torch.cat([torch.randperm(n)[:300].sort().values for _ in range(m)])
    rows = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    for values, wide, narrow in ((torch.rand(30_000), 9.5, 7.5), (torch.randint(1, 6, (30_000,)).float(), 6, 4)):
        for items, most in ((n, wide), (65_536, narrow)):
            kept = columns.clamp(max=items - 1)
            encoded = encode_ratings(
                torch.sparse_csr_tensor(rows, torch.arange(300).repeat(m) if items < n else kept, values, (m, items)),
                layout="sparse",
            )
            assert encoded.nbytes / encoded.observed <= most


def test_a_wide_integer_that_a_code_or_a_float_holds_is_encoded():
    ratings = csr_of([0, 1, 2], [0, 1], torch.tensor([-100, 77], dtype=torch.int64))
    assert encode_ratings(ratings, layout="sparse").encoding == "uint8-code"
    assert encode_ratings(ratings, None, "int8").values.dtype == torch.int8
    with pytest.raises(ValueError, match="expected one that loses nothing of these ratings, got 'uint8'"):
        encode_ratings(ratings, None, "uint8")
    with pytest.raises(ValueError, match=r"^ratings: expected integers that float64 holds exactly"):
        encode_ratings(csr_of([0, 1, 1], [0], torch.tensor([2**53 + 1])))


@pytest.mark.parametrize(("density", "layout"), [(0.01, "sparse"), (0.9, "dense")])
def test_the_layout_follows_the_density(density, layout):
    inputs = draw_inputs(100, 100, 3, density=density)
    assert encode_ratings(inputs.ratings, inputs.mask).layout == layout
    assert encode_ratings(sparse_of(inputs)).layout == layout
    other = {"sparse": "dense", "dense": "sparse"}[layout]
    assert encode_ratings(inputs.ratings, inputs.mask, layout=other).layout == other
    assert encode_ratings(inputs.ratings, inputs.mask, "float32").layout == "sparse"
    assert encode_ratings(inputs.ratings, inputs.mask, "float32-nan").layout == "dense"


def test_bad_layouts_and_encodings_are_named():
    with pytest.raises(ValueError, match=r"^layout: expected one of auto, dense, sparse, got 'csr'"):
        encode_ratings(torch.ones(2, 3), layout="csr")
    with pytest.raises(ValueError, match=r"^encoding: expected one of uint8-code, bfloat16, .*, got 'float32-nan'"):
        encode_ratings(torch.ones(2, 3), None, "float32-nan", "sparse")
    stored_nan = csr_of([0, 1, 1], [0], torch.tensor([float("nan")]))
    with pytest.raises(ValueError, match=r"^ratings: expected no NaN, since NaN encodes 'missing' in a dense layout"):
        encode_ratings(stored_nan, layout="dense")


def test_saved_moved_and_loaded(tmp_path):
    inputs = draw_inputs(20, 30, 3, density=0.3)
    encoded = encode_ratings(inputs.ratings, inputs.mask, layout="sparse")
    encoded.save(tmp_path / "ratings.pt")
    loaded = EncodedRatings.load(tmp_path / "ratings.pt")
    assert (loaded.layout, loaded.shape, loaded.nbytes) == ("sparse", (20, 30), encoded.nbytes)
    assert_right(inputs, mf_loss_and_grads(*inputs[:5], loaded, reg=inputs.reg))
    assert encoded.to("meta").columns.device.type == "meta"
    assert encoded.to("cpu").columns is encoded.columns


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_by_autograd_transforms_and_the_compiler(backend):
    inputs = draw_inputs(40, 50, 6, density=0.2)
    for ratings in (sparse_of(inputs), encode_ratings(inputs.ratings, inputs.mask, layout="sparse")):
        _, expected = mf_loss_and_grads(*inputs[:5], ratings, reg=0.2, backend=backend)
        parameters = [parameter.clone().requires_grad_() for parameter in inputs[:5]]
        mf_loss(*parameters, ratings, reg=0.2, backend=backend).backward()
        transformed = torch.func.grad(lambda p, r=ratings: mf_loss(*p, r, reg=0.2, backend=backend))(inputs[:5])
        compiled = torch.compile(lambda p, r: mf_loss_and_grads(*p, r, reg=0.2, backend=backend), backend="eager")(
            inputs[:5], ratings
        )[1]
        for parameter, other, third, grad in zip(parameters, transformed, compiled, expected, strict=True):
            assert torch.equal(parameter.grad, grad)
            assert torch.equal(other, grad)
            assert torch.equal(third, grad)


def test_ratings_that_require_a_gradient_are_refused():
    ratings = csr_of([0, 1, 2], [0, 1]).requires_grad_()
    with pytest.raises(ValueError, match=r"^ratings: expected no requires_grad"):
        mf_loss(*parameters_of(), ratings)


@pytest.mark.parametrize("block", [1, 7, 64])
def test_the_backend_in_pytorch_works_in_blocks(monkeypatch, block):
    monkeypatch.setattr("kernels.tiled_sparse.BLOCK_ELEMENTS", {"cpu": block * 5})
    monkeypatch.setattr(csr, "CHUNK_ELEMENTS", block)
    inputs = draw_inputs(30, 40, 5, density=0.2)
    for ratings in (sparse_of(inputs), sparse_of(inputs, shuffled=True)):
        assert_right(inputs, mf_loss_and_grads(*inputs[:5], ratings, reg=inputs.reg, backend="torch"))


def test_a_matrix_too_large_to_be_dense():
    m, n = 200_000, 300_000
    rows = torch.arange(m + 1)
    columns = (torch.arange(m) * 7919) % n
    ratings = torch.sparse_csr_tensor(rows, columns, torch.ones(m), (m, n))
    P, Q = torch.rand(m, 2), torch.rand(n, 2)
    bu, bi, mu = torch.zeros(m), torch.zeros(n), torch.zeros(())
    error = (P.double() * Q[columns].double()).sum(1) - 1
    for backend in BACKENDS:
        loss, grads = mf_loss_and_grads(P, Q, bu, bi, mu, ratings, reg=0.0, backend=backend)
        assert loss.item() == pytest.approx(error.square().sum().item(), rel=1e-6)
        np.testing.assert_allclose(grads.user_bias, 2 * error, atol=1e-6)
    encoded = encode_ratings(ratings)
    assert (encoded.layout, encoded.columns.dtype) == ("sparse", torch.int32)


@pytest.mark.parametrize("size", [(2, 2), (4, 1)])
def test_blocks_are_refused_with_what_is_accepted(size: tuple[int, int]) -> None:
    blocks = torch.eye(4).to_sparse_bsr(size)
    with pytest.raises(TypeError, match=r"expected a dense tensor or torch.sparse_csr, got torch.sparse_bsr$"):
        mf_sse(*parameters_of(4, 4, 2), blocks)
    with pytest.raises(TypeError, match=r"torch.sparse_coo or torch.sparse_csc, got torch.sparse_bsr"):
        encode_ratings(blocks)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("column", [0, 5, 100_000_000])
def test_without_items_no_column_is_in_range(backend: str, column: int) -> None:
    with pytest.raises(ValueError, match=f"got {column} in row 1"):
        mf_loss_and_grads(*parameters_of(2, 0), csr_of([0, 0, 1], [column], shape=(2, 0)), backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_users_no_rating_is_stored(backend: str) -> None:
    with pytest.raises(ValueError, match=r"pointer 0 alone, and no stored rating; got \[0\], and 1"):
        mf_loss_and_grads(*parameters_of(0, 3), csr_of([0], [0], shape=(0, 3)), backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("part", ["rows", "columns"])
@pytest.mark.parametrize("used_before", [False, True])
def test_indices_without_memory(backend: str, part: str, used_before: bool) -> None:
    encoded = encode_ratings(csr_of([0, 1, 3], [1, 0, 2]), layout="sparse")
    if used_before:
        mf_loss(*parameters_of(), encoded, backend=backend)
    getattr(encoded, part).untyped_storage().resize_(0)
    with pytest.raises(ValueError, match=f"{part}: expected a tensor with memory"):
        mf_loss_and_grads(*parameters_of(), encoded, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_indices_that_were_replaced_are_checked_again(backend: str) -> None:
    encoded = encode_ratings(csr_of([0, 1, 3], [1, 0, 2]), layout="sparse")
    mf_loss(*parameters_of(), encoded, backend=backend)
    encoded.columns.data = torch.tensor([1, 0, 3], dtype=torch.int32).to(torch.uint16)
    with pytest.raises(ValueError, match="expected columns from 0 to 2, got 3 in row 1"):
        mf_loss_and_grads(*parameters_of(), encoded, backend=backend)


def test_floats_beside_levels_are_refused() -> None:
    encoded = encode_ratings(csr_of([0, 1, 3], [1, 0, 2]), layout="sparse")
    with pytest.raises(TypeError, match=r"expected uint8, the dtype of codes, beside levels; got torch.float32"):
        mf_sse(*parameters_of(), encoded._replace(values=encoded.values.float()))


def test_encoding_under_another_default_device() -> None:
    ratings = csr_of([0, 1, 3], [1, 0, 2])
    with torch.device("meta"):
        encoded = encode_ratings(ratings, layout="sparse")
    assert encoded.columns.tolist() == [1, 0, 2]
    assert encoded.values.device.type == "cpu"


def test_an_observed_nan_is_kept_by_the_layout_that_can() -> None:
    ratings = csr_of([0, 3, 6], [0, 1, 2, 0, 1, 2], values=torch.tensor([1.0, 2.0, 3.0, math.nan, 5.0, 6.0]))
    encoded = encode_ratings(ratings)
    assert (encoded.layout, encoded.observed) == ("sparse", 6)
    assert encode_ratings(csr_of([0, 3, 6], [0, 1, 2, 0, 1, 2])).layout == "dense"
    with pytest.raises(ValueError, match="expected no NaN"):
        encode_ratings(ratings, layout="dense")
