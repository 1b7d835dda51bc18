"""Sparse ratings in the order of items."""

from __future__ import annotations

import pytest
import torch

from kernels import encode_ratings
from kernels.item_order import by_item
from tests.problems import draw_inputs


def encoded_ratings(m=40, n=30, density=0.3):
    inputs = draw_inputs(m, n, 2, density=density)
    return encode_ratings(inputs.ratings, inputs.mask, layout="sparse"), inputs


@pytest.mark.parametrize("index_dtype", [None, torch.int64])
def test_is_the_transposed_matrix(index_dtype):
    encoded, inputs = encoded_ratings()
    inputs.mask[:, 3] = False
    encoded = encode_ratings(inputs.ratings, inputs.mask, layout="sparse")
    observations = encoded.observations
    if index_dtype:
        observations = observations._replace(columns=observations.columns.to(index_dtype))
    items = by_item(observations)
    assert items.shape == (30, 40)
    assert items.columns.dtype == torch.uint16
    assert items.rows.dtype == torch.int64
    dense = torch.sparse_csr_tensor(items.rows, items.columns.long(), items.ratings.double(), items.shape).to_dense()
    expected = torch.where(inputs.mask, inputs.ratings.double(), 0.0).T
    assert torch.equal(dense, expected)
    users = [items.columns[start:stop].long() for start, stop in zip(items.rows, items.rows[1:], strict=False)]
    assert all((part.diff() > 0).all() for part in users)


def test_is_built_once_until_a_tensor_changes():
    encoded, _ = encoded_ratings()
    first = by_item(encoded.observations)
    assert by_item(encoded.observations).columns is first.columns
    encoded.values[0] += 1
    again = by_item(encoded.observations)
    assert again.columns is not first.columns
    assert not torch.equal(again.ratings, first.ratings)
    other = encoded._replace(rows=encoded.rows.clone())
    assert by_item(other.observations).columns is not again.columns


def test_no_ratings():
    encoded, _ = encoded_ratings(density=0.0)
    items = by_item(encoded.observations)
    assert items.rows.tolist() == [0] * 31
    assert not len(items.columns)


def test_tensors_whose_changes_nobody_counts_are_not_remembered():
    with torch.inference_mode():
        encoded, _ = encoded_ratings()
        first = by_item(encoded.observations)
        encoded.values[0] += 1
        assert not torch.equal(by_item(encoded.observations).ratings, first.ratings)
