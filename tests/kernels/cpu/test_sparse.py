"""The CPU kernel on sparse ratings: how it divides them among threads, and what that may change."""

from __future__ import annotations

import os

import pytest
import torch

from kernels import backends, encode_ratings, mf_loss_and_grads, mf_sse
from kernels.cpu import launch
from tests.problems import assert_right, draw_inputs

pytestmark = pytest.mark.skipif(not backends()["native"].available, reason=backends()["native"].reason or "available")


@pytest.fixture
def threads(monkeypatch):
    """Let the kernel divide its work for a number of threads, however many there are."""
    return lambda number: monkeypatch.setattr(launch, "step_threads", lambda: number)


def sparse_inputs(m, n, rank, density, **options):
    inputs = draw_inputs(m, n, rank, density=density, **options)
    return inputs, encode_ratings(inputs.ratings, inputs.mask, layout="sparse")


@pytest.mark.parametrize("number", [1, 2, 3, 4, 7, 64, 300])
@pytest.mark.parametrize(
    ("m", "n", "rank", "density"),
    [
        pytest.param(600, 700, 33, 0.3, id="a copy of the items' gradients for some threads"),
        pytest.param(600, 3000, 40, 0.02, id="threads take turns with the items"),
        pytest.param(601, 3001, 64, 0.02, id="threads take turns with items whose factors are read in place"),
        pytest.param(300, 301, 64, 0.3, id="the same, a copy of the gradients for each"),
        pytest.param(2, 30_000, 20, 0.9, id="users are split"),
        pytest.param(20_000, 3, 20, 0.9, id="more users than entries of any item share"),
    ],
)
def test_right_and_reproducible_at_any_number_of_threads(threads, number, m, n, rank, density):
    inputs, encoded = sparse_inputs(m, n, rank, density)
    threads(number)
    loss, grads = mf_loss_and_grads(*inputs[:5], encoded, reg=inputs.reg, backend="native")
    assert_right(inputs, (loss, grads))
    for _ in range(3):
        again, other = mf_loss_and_grads(*inputs[:5], encoded, reg=inputs.reg, backend="native")
        assert torch.equal(again, loss)
        assert all(map(torch.equal, other, grads))


@pytest.mark.parametrize("number", [2, 5, 16])
@pytest.mark.parametrize("long_user", [0, 150, 299])
def test_a_user_with_most_ratings_is_split(threads, number, long_user):
    inputs = draw_inputs(300, 20_000, 12, density=0.0005)
    inputs.mask[long_user] = True
    inputs.mask[long_user // 2] = False
    inputs = inputs._replace(ratings=torch.where(inputs.mask, torch.rand(300, 20_000), float("nan")))
    threads(number)
    encoded = encode_ratings(inputs.ratings, inputs.mask, layout="sparse")
    assert_right(inputs, mf_loss_and_grads(*inputs[:5], encoded, reg=inputs.reg, backend="native"))


@pytest.mark.parametrize("rank", [1, 7, 8, 9, 31, 32, 33, 40, 72, 100, 511, 512])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ranks(rank, dtype):
    inputs, encoded = sparse_inputs(90, 150, rank, 0.2, dtype=dtype)
    assert_right(inputs, mf_loss_and_grads(*inputs[:5], encoded, reg=inputs.reg, backend="native"))


def test_the_last_entries_of_the_ratings_are_read_to_their_end_only():
    """Chunks are read whole where a later user's entries follow; at the end there are none."""
    for count in range(1, 70):
        columns = torch.arange(count)
        ratings = torch.sparse_csr_tensor(torch.tensor([0, count]), columns, columns.float(), (1, 100))
        inputs = draw_inputs(1, 100, 4, density=0.0)._replace(ratings=torch.arange(100.0)[None])
        inputs.mask[0, :count] = True
        assert_right(inputs, mf_loss_and_grads(*inputs[:5], ratings, reg=inputs.reg, backend="native"))


@pytest.mark.parametrize("part", ["columns", "rows"])
@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("number", [1, 3])
def test_indices_that_were_overwritten_unseen_reach_no_foreign_memory(part, gradients, number, threads):
    """PyTorch does not count what NumPy writes: results are then wrong, but rows of 500 GB away must not be read."""
    threads(number)
    inputs, encoded = sparse_inputs(300, 400, 512, 0.3)
    step = mf_loss_and_grads if gradients else mf_sse
    step(*inputs[:5], encoded, backend="native")  # checked here
    indices = getattr(encoded, part).numpy()
    if part == "columns":
        indices[::3] = 65_535
    else:
        indices[1::4], indices[2::4], indices[3::4] = 1 << 40, -(1 << 40), 17
    step(*inputs[:5], encoded, backend="native")
    assert_right(inputs, mf_loss_and_grads(*inputs[:5], encode_ratings(inputs.ratings, inputs.mask), reg=inputs.reg))


def test_factors_of_any_strides():
    inputs, encoded = sparse_inputs(60, 80, 10, 0.3, layouts=("every second", "contiguous", "contiguous"))
    assert_right(inputs, mf_loss_and_grads(*inputs[:5], encoded, reg=inputs.reg, backend="native"))


def test_long_sums_keep_their_accuracy():
    """Errors of one sign, thousands for every item and user: rounding must not pile up."""
    inputs = draw_inputs(6000, 40, 8, density=1.0)
    positive = [parameter.abs() + 1 for parameter in inputs[:5]]
    inputs = inputs._replace(**dict(zip(inputs._fields, positive, strict=False)), ratings=torch.zeros(6000, 40))
    encoded = encode_ratings(inputs.ratings, inputs.mask, layout="sparse")
    assert_right(inputs, mf_loss_and_grads(*inputs[:5], encoded, reg=inputs.reg, backend="native"))


def test_forward_only_adds_up_the_same():
    inputs, encoded = sparse_inputs(500, 600, 20, 0.3)
    loss, _ = mf_loss_and_grads(*inputs[:5], encoded, reg=0.0, backend="native")
    assert mf_sse(*inputs[:5], encoded, backend="native").item() == pytest.approx(loss.item(), rel=1e-12)


def test_memory_grows_with_the_ratings():
    """Nothing of users x items: this problem's matrix would take 40 GB."""
    resource = pytest.importorskip("resource")
    m = n = 100_000
    rows, columns = torch.arange(m + 1) * 3, torch.randint(0, n // 3, (m, 3)) + torch.arange(3) * (n // 3)
    ratings = torch.sparse_csr_tensor(rows, columns.flatten(), torch.ones(3 * m), (m, n))
    parameters = torch.rand(m, 4), torch.rand(n, 4), torch.rand(m), torch.rand(n), torch.rand(())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for backend in ("native", "torch"):
        mf_loss_and_grads(*parameters, encode_ratings(ratings), backend=backend)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < 300e6, f"{os.getpid()} grew by {grown / 1e6:.0f} MB"


@pytest.mark.parametrize("layout", ["dense", "sparse"])
@pytest.mark.parametrize(("m", "n"), [(1, 100_000), (100_000, 1)])
def test_norms_of_many_equal_parameters_are_accurate(layout, m, n):
    """Equal terms round in the same direction each time."""
    ratings = torch.zeros(m, n, dtype=torch.float64)
    factors = (torch.full((size, 32), 0.1, dtype=torch.float64) for size in (m, n))
    biases = (torch.full((size,), 0.1, dtype=torch.float64) for size in (m, n))
    parameters = (*factors, *biases, torch.zeros((), dtype=torch.float64))
    encoded = encode_ratings(ratings, torch.zeros(m, n, dtype=torch.bool), layout=layout)
    loss, _ = mf_loss_and_grads(*parameters, encoded, reg=1.0, backend="native")
    assert loss.item() == pytest.approx(33 * (m + n) * 0.1**2, rel=1e-14)
