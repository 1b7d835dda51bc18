"""Ratings that few data sets have: training with defaults works, or the message names the data and not an option."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from mfbench.errors import UsageError
from mfbench.problems.datasets import Ratings
from mfbench.problems.matrices import to_sparse
from mfbench.providers import registry
from mfbench.train.loop import train
from mfbench.train.options import Optimizer
from mfbench.train.task import rating_task

FUSED = registry.load("fused")
PLACES = torch.arange(40)[:, None] * torch.arange(1, 31)
OPTIMIZERS = ("preconditioned", "momentum", "sgd", "adam")
ODD: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "all of one value": lambda stars: torch.full_like(stars, 3.0),
    "all 0": torch.zeros_like,
    "below 0": lambda stars: -stars,
    "one far beyond the others": lambda stars: stars.index_fill(0, torch.tensor([7]), 1e9),
    "subnormal": lambda stars: stars * 1e-38,
    "of 1e15": lambda stars: stars * 1e15,
    "of either sign with heavy tails": lambda stars: (torch.pi * (stars / 8 - 0.5)).tan() ** 3,
}


def ratings(change: Callable[[torch.Tensor], torch.Tensor], size: tuple[int, int] = (40, 30)) -> Ratings:
    values = (PLACES % 7 + 1.0)[: size[0], : size[1]]
    return Ratings(to_sparse(change(values), PLACES[: size[0], : size[1]] % 3 == 0), "odd")


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kind", ODD)
def test_odd_ratings_are_trained_with_the_defaults(kind: str, optimizer: Optimizer) -> None:
    task = rating_task(ratings(ODD[kind]), 8)
    run = train(task, FUSED, 60, 20, optimizer)
    assert all(math.isfinite(entry.loss) for entry in run.entries)
    assert all(parameter.isfinite().all() for parameter in task.inputs[:5])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("size", [(1, 1), (1, 30), (40, 1), (2, 2)])
@pytest.mark.parametrize("holdout", [0.0, 0.1])
def test_few_ratings_are_trained_with_the_defaults(size: tuple[int, int], optimizer: Optimizer, holdout: float) -> None:
    few = Ratings(to_sparse((PLACES % 7 + 1.0)[: size[0], : size[1]], None), "few")
    run = train(rating_task(few, 8, holdout=holdout), FUSED, 60, 20, optimizer)
    assert run.entries[-1].loss <= run.entries[0].loss * (1 + 1e-5)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("provider", ["fused", "autograd"])
@pytest.mark.parametrize("scale", [1e25, 3e37])
def test_ratings_whose_squares_float32_does_not_hold_are_named(scale: float, provider: str, optimizer) -> None:
    task = rating_task(ratings(lambda stars: stars * scale), 8)
    expected = rf"float32 does not hold the squares of {7 * scale:.3g}; divide the ratings".replace("+", r"\+")
    with pytest.raises(UsageError, match=expected) as raised:
        train(task, registry.load(provider), 60, 20, optimizer)
    assert (raised.value.code, raised.value.argument) == ("bad-loss", "data")
