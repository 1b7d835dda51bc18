"""Sparse and dense matrices hold the same ratings, and parts of them are views."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mfbench.problems import matrices
from mfbench.problems.matrices import csr, parts, row_numbers, rows, size_in_bytes, to_dense, to_sparse, with_parts

NAN = float("nan")


def drawn(m, n, seed=0, density=0.4):
    generator = torch.Generator().manual_seed(seed)
    ratings = torch.randint(0, 4, (m, n), generator=generator).float()
    return ratings, (torch.rand((m, n), generator=generator) < density).to(torch.uint8)


@given(m=st.integers(0, 20), n=st.integers(0, 20), seed=st.integers(0, 2**31))
def test_there_and_back(m, n, seed):
    ratings, mask = drawn(m, n, seed)
    sparse = to_sparse(ratings, mask)
    dense, again = to_dense(sparse)
    assert torch.equal(again, mask)
    assert torch.equal(dense, ratings * mask)
    assert sparse.values().numel() == int(mask.sum())  # zeros among the ratings are stored
    assert row_numbers(sparse).tolist() == mask.nonzero()[:, 0].tolist()


def test_without_a_mask_nan_is_missing():
    ratings = torch.tensor([[NAN, 0.0], [2.0, NAN]], dtype=torch.float16)
    sparse = to_sparse(ratings, None)
    assert sparse.col_indices().tolist() == [1, 0]
    assert sparse.values().tolist() == [0.0, 2.0]
    assert sparse.dtype == torch.float16


def test_building_a_sparse_matrix_warns_of_nothing():
    """Runs in a separate process, since PyTorch issues each warning only once."""
    code = (
        "import warnings, torch; from mfbench.problems.matrices import csr; warnings.simplefilter('error'); "
        "csr(torch.tensor([0, 1]), torch.tensor([0]), torch.ones(1), (1, 1))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("block", [1, 7, 100])
def test_blocks_of_a_matrix_add_up(monkeypatch, block):
    ratings, mask = drawn(9, 5)
    whole = to_sparse(ratings, mask)
    monkeypatch.setattr(matrices, "BLOCK_ELEMENTS", block)
    for part, expected in zip(parts(to_sparse(ratings, mask)), parts(whole), strict=True):
        assert torch.equal(part, expected)


@pytest.mark.parametrize("wanted", [slice(0, 9), slice(2, 5), slice(4, 4), slice(7, 20)])
def test_rows_are_views_of_the_entries(wanted):
    ratings, mask = drawn(9, 5)
    sparse = to_sparse(ratings, mask)
    some = rows(sparse, wanted)
    expected = to_sparse(ratings[wanted], mask[wanted])
    assert some.shape == expected.shape
    for part, other in zip(parts(some), parts(expected), strict=True):
        assert torch.equal(part, other)
    if some.values().numel():
        sparse.values().fill_(9)
        assert (some.values() == 9).all()
    assert torch.equal(rows(ratings, wanted), ratings[wanted])


def test_parts_and_their_size():
    sparse = csr(torch.tensor([0, 1, 2]), torch.tensor([3, 0]), torch.tensor([1.0, 2.0]), (2, 4))
    assert size_in_bytes(sparse) == 3 * 8 + 2 * 8 + 2 * 4
    other = with_parts(sparse, [part + 0 for part in parts(sparse)])
    assert other.shape == (2, 4)
    assert torch.equal(other.values(), sparse.values())
    dense = torch.zeros(2, 3)
    assert parts(dense) == (dense,)
    assert with_parts(dense, [dense]) is dense
    assert size_in_bytes(dense) == 24


def test_ratings_of_rows_and_columns_are_counted_in_either_layout():
    mask = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 0, 0]], dtype=torch.uint8)
    ratings = torch.arange(9.0).reshape(3, 3)
    forms = (ratings, mask), (ratings.masked_fill(mask == 0, NAN), None), (to_sparse(ratings, mask), None)
    for form in forms:
        assert [count.tolist() for count in matrices.counts(*form)] == [[2, 0, 1], [2, 0, 1]]
