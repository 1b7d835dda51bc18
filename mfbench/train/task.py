"""What to train: the notebook's problem, or ratings of which a part is held out."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mfbench.errors import UsageError
from mfbench.problems import datasets
from mfbench.problems.bounds import DRAWN
from mfbench.problems.cases import Case
from mfbench.problems.datasets import Ratings
from mfbench.problems.inputs import Inputs, draw
from mfbench.train.options import NOTEBOOK_SIZE, TrainOptions

START_SCALE = 0.1  # standard deviation of the initial factors on real ratings


class Task(NamedTuple):
    """What to train, and what to judge it by."""

    name: str
    inputs: Inputs  # initial parameters, ratings, and the mask of the training part
    held_out: Tensor  # (m, n) uint8, 1 = held out


def make_task(options: TrainOptions) -> Task:
    """Make the task that the options ask for, on the CPU.

    Raises:
        UsageError: the data cannot be read, or has its own size and one was given.
        DataUnavailable: the data set is not installed.
    """
    if options.data == "seed":
        return notebook_task(options.size or NOTEBOOK_SIZE, options.rank, options.density, options.seed, options.reg)
    return rating_task(_ratings(options), options.rank, options.seed, options.reg, options.holdout)


def notebook_task(
    size: tuple[int, int] = NOTEBOOK_SIZE, rank: int = 30, density: float = 0.8, seed: int = 1, reg: float = 0.1
) -> Task:
    """Make the notebook's task: uniform ratings, standard-normal start, judged by the unobserved entries."""
    case = Case(
        suite="train", m=size[0], n=size[1], rank=rank, density=density, ratings_dtype="float64", mask="int32",
        data="seed", seed=seed,
    )  # fmt: skip
    inputs = draw(case)._replace(reg=reg)
    assert inputs.mask is not None  # the case has one
    return Task("seed", inputs, (inputs.mask == 0).to(torch.uint8))


def rating_task(ratings: Ratings, rank: int = 30, seed: int = 1, reg: float = 0.1, holdout: float = 0.1) -> Task:
    """Hold out a random part of ratings; training starts at the mean, with small factors and no biases."""
    generator = torch.Generator("cpu").manual_seed(seed)
    (m, n), observed = ratings.values.shape, ratings.mask.flatten().nonzero().squeeze(1)
    shuffled = observed[torch.randperm(len(observed), generator=generator, device="cpu")]
    chosen, kept = shuffled.tensor_split([round(holdout * len(observed))])
    held_out = torch.zeros(m * n, dtype=torch.uint8, device="cpu").index_fill_(0, chosen, 1).reshape(m, n)
    mask = ratings.mask - held_out
    mean = ratings.values.flatten()[kept].sum(dtype=torch.float64) / max(1, len(kept))
    p, q = (torch.randn((rows, rank), generator=generator, device="cpu") * START_SCALE for rows in (m, n))
    inputs = Inputs(
        p,
        q,
        torch.zeros(m, 1, device="cpu"),
        torch.zeros(n, 1, device="cpu"),
        mean.float().reshape(1),
        ratings.values,
        mask,
        reg,
    )
    return Task(ratings.name, inputs, held_out)


def _ratings(options: TrainOptions) -> Ratings:
    if options.data in DRAWN:
        m, n = options.size or NOTEBOOK_SIZE
        case = Case(
            suite="train", m=m, n=n, rank=0, density=options.density, ratings_dtype="float32", mask="uint8",
            data=options.data, seed=options.seed,
        )  # fmt: skip
        drawn = draw(case)
        assert drawn.mask is not None  # the case has one
        return Ratings(drawn.ratings, drawn.mask, options.data)
    if options.size:
        message = f"{options.data!r} has its own size; only {', '.join(DRAWN)} are drawn at any size"
        raise UsageError(message, code="bad-size", argument="size")
    return datasets.load(options.data)
