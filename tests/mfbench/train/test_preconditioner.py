"""The preconditioner bounds the curvature of the loss, for either layout, and stays finite without ratings."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mfbench.problems.datasets import Ratings
from mfbench.problems.inputs import Inputs
from mfbench.problems.matrices import to_sparse
from mfbench.providers import registry
from mfbench.train.loop import train
from mfbench.train.preconditioner import RATE, Preconditioner
from mfbench.train.task import Task, rating_task
from reference import oracle_loss_and_grads


def drawn(m: int, n: int, density: float = 0.5) -> Ratings:
    values = torch.rand(m, n) * 4 + 1
    return Ratings(to_sparse(values, (torch.rand(m, n) < density).to(torch.uint8)), "drawn")


def scales(inputs: Inputs) -> list[torch.Tensor]:
    """Return by what each parameter's gradient is divided."""
    task = Task("drawn", inputs, torch.zeros(inputs.ratings.shape, dtype=torch.bool))
    return [scale.expand_as(p) for scale, p in zip(Preconditioner(task).scales(), inputs[:5], strict=True)]


def test_the_bound_by_hand() -> None:
    """Users with two, one and no ratings; the factors of items 0 and 1 have squares of 4 and 1."""
    mask = torch.tensor([[1, 1], [1, 0], [0, 0]], dtype=torch.uint8)
    p, q = torch.zeros(3, 2), torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    inputs = Inputs(p, q, torch.zeros(3, 1), torch.zeros(2, 1), torch.zeros(1), torch.ones(3, 2), mask, reg=0.5)
    mean = (2 * 4 + 1 * 1) / 3  # over the three ratings
    of_users = [2 * (max(count, 1) * (1 + mean) + 0.5) for count in (2, 1, 0)]
    of_items = [2 * (count + 0.5) for count in (2, 1)]
    user_factors, item_factors, user_bias, item_bias, global_bias = scales(inputs)
    assert user_bias.flatten().tolist() == pytest.approx(of_users)
    assert item_bias.flatten().tolist() == pytest.approx(of_items)
    assert global_bias.tolist() == [6.0]
    torch.testing.assert_close(user_factors, user_bias.expand(3, 2))
    torch.testing.assert_close(item_factors, item_bias.expand(2, 2))


def test_either_layout_has_the_same_scales() -> None:
    ratings = drawn(9, 14)
    dense, sparse = (rating_task(ratings, 3, layout=layout).inputs for layout in ("dense", "sparse"))
    unmasked = dense._replace(ratings=dense.ratings.masked_fill(dense.mask == 0, float("nan")), mask=None)
    for one, other, third in zip(scales(dense), scales(sparse), scales(unmasked), strict=True):
        torch.testing.assert_close(one, other)
        torch.testing.assert_close(one, third)


@pytest.mark.parametrize(("m", "n", "rank"), [(7, 5, 2), (12, 3, 0), (4, 9, 3)])
def test_preconditioned_descent_is_stable(m: int, n: int, rank: int) -> None:
    """Where the errors are 0, so that the Hessian is the sum of squares that the bound is about.

    Every rating is observed and all factors have the same norm, so that means are exact.
    """
    p, q = (torch.nn.functional.normalize(torch.randn(rows, rank).double(), dim=1) for rows in (m, n))
    parameters = [p, q, torch.randn(m, 1).double(), torch.randn(n, 1).double(), torch.randn(1).double()]
    ratings = p @ q.T + parameters[2] + parameters[3].T + parameters[4]
    inputs = Inputs(*parameters, ratings, torch.ones(m, n, dtype=torch.uint8), reg=0.3)
    sizes = [parameter.numel() for parameter in parameters]

    def slope(flat: torch.Tensor) -> torch.Tensor:
        split = [part.reshape(p.shape) for part, p in zip(flat.split(sizes), parameters, strict=True)]
        grads = oracle_loss_and_grads(*split, inputs.ratings, inputs.mask, inputs.reg)[1]
        return torch.cat([torch.from_numpy(np.asarray(grad)).flatten() for grad in grads])

    at = torch.cat([parameter.flatten() for parameter in parameters])
    nudges = torch.eye(len(at), dtype=torch.float64) * 1e-5
    hessian = torch.stack([(slope(at + nudge) - slope(at - nudge)) / 2e-5 for nudge in nudges])
    root = torch.cat([scale.flatten().expand(size) if scale.numel() == 1 else scale.expand(p.shape).flatten()
                      for scale, size, p in zip(scales(inputs), sizes, parameters, strict=True)]).rsqrt()  # fmt: skip
    largest = torch.linalg.eigvalsh(root[:, None] * (hessian + hessian.T) / 2 * root)[-1]
    assert 0.5 < largest <= 1 / RATE + 1e-6


def test_users_and_items_without_ratings_stay_finite() -> None:
    mask = torch.zeros(6, 5, dtype=torch.uint8)
    mask[:3, :2] = 1
    ratings = Ratings(to_sparse(torch.rand(6, 5) + 1, mask), "holes")
    for layout in ("dense", "sparse"):
        task = rating_task(ratings, 2, reg=0.0, layout=layout)
        train(task, registry.load("fused"), 20, 10, "preconditioned")
        assert all(parameter.isfinite().all() for parameter in task.inputs[:5])
