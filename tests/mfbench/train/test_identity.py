"""What makes two problems the same for a checkpoint."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mfbench.problems.matrices import to_sparse
from mfbench.train.identity import checksum, differences, identity
from mfbench.train.options import TrainOptions
from mfbench.train.task import make_task


def of(**options) -> dict:
    given = TrainOptions(**{"data": "synthetic", "size": (12, 9), **options})
    return identity(given, make_task(given))


def test_layout_and_provider_do_not_matter() -> None:
    assert of(layout="sparse") == of(
        layout="dense", provider="autograd", epochs=3, every=1, patience=9, target_rmse=1.0
    )


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"rank": 20}, "rank: 30 there, 20 here"),
        ({"optimizer": "adam"}, "optimizer: preconditioned there, adam here"),
        ({"reg": 0.5}, "reg: left to its default there, 0.5 here"),
        ({"lr": 0.1}, "lr: left to its default there, 0.1 here"),
        ({"seed": 2}, "seed: 1 there, 2 here, ratings: "),
        ({"holdout": 0.2}, "holdout: 0.1 there, 0.2 here, ratings: "),
        ({"size": (12, 8)}, "size: 12x9 there, 12x8 here, ratings: "),
        ({"density": 0.5}, "ratings: "),
        ({"data": "power-law"}, "ratings: "),
    ],
)
def test_what_differs_is_named(other: dict, said: str) -> None:
    found = differences(of(), of(**other))
    assert found.startswith(said)
    assert ("ratings" in found) == ("ratings" in said)


def test_one_changed_rating_of_a_file_is_seen(tmp_path) -> None:
    ratings = 1 + np.arange(12.0).reshape(3, 4) % 5
    np.save(tmp_path / "ratings.npy", ratings)
    before = of(data=str(tmp_path / "ratings.npy"), size=None)
    ratings[1, 2] += 1
    np.save(tmp_path / "ratings.npy", ratings)
    assert differences(before, of(data=str(tmp_path / "ratings.npy"), size=None)).startswith("ratings: ")


def test_a_checksum_depends_on_values_and_places() -> None:
    ratings = torch.tensor([[1.0, 0.0, 2.0], [float("nan"), 3.0, 4.0]])
    swapped = ratings.clone()
    swapped[0, 0], swapped[1, 1] = ratings[1, 1], ratings[0, 0]
    moved = ratings.clone()
    moved[1, 0], moved[1, 1] = ratings[1, 1], ratings[1, 0]
    zero_elsewhere = torch.tensor([[1.0, 2.0, 0.0], [float("nan"), 3.0, 4.0]])
    different = [ratings, swapped, moved, zero_elsewhere, -ratings, ratings.double(), ratings[:, :2], ratings[:1]]
    assert len({checksum(to_sparse(matrix, None)) for matrix in different}) == len(different)
    assert checksum(to_sparse(ratings, None)) == checksum(to_sparse(ratings.clone(), None))


def test_checksums_see_zeros_and_rearranged_values() -> None:
    first, second = torch.tensor([[True, True, False]]), torch.tensor([[True, False, True]])
    zeros = torch.zeros(1, 3)
    assert checksum(to_sparse(zeros, first)) != checksum(to_sparse(zeros, second))
    mirrored = torch.tensor([[5.0, 1.0, 1.0, 5.0]]), torch.tensor([[1.0, 5.0, 5.0, 1.0]])
    assert len({checksum(to_sparse(ratings, None)) for ratings in mirrored}) == 2
