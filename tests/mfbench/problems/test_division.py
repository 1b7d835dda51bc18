"""Users divided among processes."""

from __future__ import annotations

from itertools import pairwise

import torch
from hypothesis import given
from hypothesis import strategies as st

from mfbench.problems.division import bounds


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(1, 9))
def test_every_user_has_one_process_and_ratings_are_balanced(counts: list[int], processes: int) -> None:
    edges = bounds(torch.tensor(counts, dtype=torch.int64), processes)
    assert (edges[0], edges[-1], len(edges)) == (0, len(counts), processes + 1)
    assert edges == sorted(edges)
    for start, stop in pairwise(edges):
        assert sum(counts[start:stop]) <= sum(counts) / processes + max(counts, default=0)


def test_users_without_ratings_are_divided_themselves() -> None:
    assert bounds(torch.zeros(9, dtype=torch.int64), 3) == [0, 3, 6, 9]
