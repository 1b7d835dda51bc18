"""Training tasks: ratings are split once, reproducibly, and training starts at the mean of the ratings it may see."""

import pytest
import torch

from mfbench.problems.datasets import Ratings
from mfbench.problems.matrices import to_dense, to_sparse
from mfbench.train.task import NOISE, noise_level, notebook_task, rating_task


@pytest.mark.parametrize(("holdout", "count"), [(0.1, 100), (0.25, 250), (0.0, 0)])
def test_the_split(holdout, count):
    generator = torch.Generator().manual_seed(1)
    mask = torch.zeros(50 * 40, dtype=torch.uint8)
    mask[torch.randperm(2000, generator=generator)[:1000]] = 1
    values = torch.rand(2000, generator=generator) * mask
    mask = mask.reshape(50, 40)
    ratings = Ratings(to_sparse(values.reshape(50, 40), mask), "x")
    before = ratings.matrix.values().clone()
    task, again, other = (rating_task(ratings, 4, seed, holdout=holdout) for seed in (7, 7, 8))

    assert int(task.held_out.sum()) == count
    assert torch.equal(task.held_out + task.inputs.mask, mask)  # each observed rating in one of the two
    assert torch.equal(task.held_out, again.held_out)
    assert count == 0 or not torch.equal(task.held_out, other.held_out)
    trained_on = values.reshape(50, 40)[task.inputs.mask == 1]
    assert float(task.inputs.global_bias) == pytest.approx(float(trained_on.mean()), rel=1e-5)
    assert torch.equal(ratings.matrix.values(), before)

    sparse = rating_task(ratings, 4, 7, holdout=holdout, layout="sparse")
    assert torch.equal(to_dense(sparse.held_out)[1], task.held_out)
    assert torch.equal(to_dense(sparse.inputs.ratings)[1], task.inputs.mask)
    assert torch.equal(to_dense(sparse.inputs.ratings)[0], task.inputs.ratings * task.inputs.mask)
    assert sparse.held_out_count == task.held_out_count == count
    assert sparse.held_out_sse() == pytest.approx(task.held_out_sse(), rel=1e-6)
    for one, other in zip(sparse.inputs[:5], task.inputs[:5], strict=True):
        assert torch.equal(one, other)


def test_the_default_regulariser_is_the_largest_singular_value_of_noise():
    """Of the share of the deviation that is taken to be noise."""
    m, n, density = 300, 200, 0.3
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(m, n, generator=generator, dtype=torch.float64) * 7 + 100
    mask = torch.rand(m, n, generator=generator) < density
    largest = torch.linalg.svdvals(torch.where(mask, noise - 100, 0))[0]
    assert noise_level(noise[mask], m, n) / NOISE == pytest.approx(float(largest), rel=0.05)
    assert noise_level(torch.zeros(0, dtype=torch.float64), 0, 0) == 0


def test_the_regulariser_of_ratings_comes_from_those_that_are_trained_on():
    values = torch.rand(50, 40, generator=torch.Generator().manual_seed(2))
    ratings = Ratings(to_sparse(values, None), "x")
    task = rating_task(ratings, 2, holdout=0.25)
    trained_on = values[task.inputs.mask == 1].double()
    assert task.inputs.reg == pytest.approx(noise_level(trained_on, 50, 40), rel=1e-6)
    assert rating_task(ratings, 2, reg=0.0).inputs.reg == 0
    assert notebook_task((4, 3), 2).inputs.reg == 0.1


def test_the_notebook_is_judged_by_its_unobserved_entries():
    task = notebook_task((21, 34), rank=3, density=0.6, seed=9, reg=0.5)
    assert torch.equal(task.held_out == 1, task.inputs.mask == 0)
    assert 0.5 < task.inputs.mask.double().mean() < 0.7
    assert task.inputs.reg == 0.5
    assert [parameter.shape for parameter in task.inputs[:2]] == [(21, 3), (34, 3)]
