"""Power-law ratings: distinct places in the number asked for, unevenly spread."""

from __future__ import annotations

import pytest
import torch

from mfbench.problems.matrices import row_numbers
from mfbench.problems.power_law import draw


def drawn(m: int, n: int, count: int, seed: int = 1) -> torch.Tensor:
    return draw(m, n, count, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("m", "n", "count"), [(0, 0, 0), (1, 1, 1), (7, 5, 0), (7, 5, 35), (40, 30, 1190), (500, 300, 4000)]
)
def test_places_are_distinct_and_in_order(m: int, n: int, count: int) -> None:
    matrix = drawn(m, n, count)
    assert matrix.shape == (m, n)
    places = row_numbers(matrix).long() * n + matrix.col_indices()
    assert len(places) == count
    assert (places.diff() > 0).all()
    assert ((matrix.col_indices() >= 0) & (matrix.col_indices() < n)).all()


def test_a_tenth_has_much_more_than_a_tenth() -> None:
    m, n, count = 2000, 1000, 40_000
    matrix = drawn(m, n, count)
    by_user, by_item = matrix.crow_indices().diff(), torch.bincount(matrix.col_indices(), minlength=n)
    for counts in (by_user, by_item):
        ordered = counts.sort(descending=True).values
        tenth = len(counts) // 10
        assert 0.3 < int(ordered[:tenth].sum()) / count < 0.6
        assert abs(int(counts[:tenth].sum()) / count - 0.1) < 0.05  # the busiest are anywhere


def test_a_seed_gives_one_matrix() -> None:
    first, again, other = drawn(50, 40, 300), drawn(50, 40, 300), drawn(50, 40, 300, seed=2)
    assert torch.equal(first.col_indices(), again.col_indices())
    assert not torch.equal(first.col_indices(), other.col_indices())
