"""What to train: the notebook's problem, or ratings of which a part is held out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kernels import mf_sse
from mfbench.problems import datasets, matrices
from mfbench.problems.bounds import DRAWN
from mfbench.problems.cases import Case, CaseSpec, Layout, refuse_shape
from mfbench.problems.datasets import Ratings
from mfbench.problems.inputs import Inputs, draw, on_device, resolve
from mfbench.train.options import NOTEBOOK_SIZE, TrainOptions

PARAMETERS = Inputs._fields[:5]
START_SCALE = 0.1  # standard deviation of the initial factors on real ratings
NOTEBOOK_REG = 0.1
NOISE = 0.75  # of the standard deviation of people's ratings, what a model leaves unexplained


class Task(NamedTuple):
    """What to train, and what to judge it by."""

    name: str
    inputs: Inputs  # initial parameters, and the ratings of the training part
    # What is held out: of dense ratings a mask, (m, n) uint8; of sparse ratings a separate torch.sparse_csr matrix
    held_out: Tensor
    users: Sequence[Any] = ()  # identifiers of the rows, where the ratings came from a file
    items: Sequence[Any] = ()  # identifiers of the columns

    @property
    def held_out_count(self) -> int:
        """Number of ratings held out, of all processes."""
        own = self.held_out.values().numel() if self.inputs.sparse else int(self.held_out.count_nonzero())
        return int(self.total(torch.tensor(own, device=self.held_out.device)))

    def total(self, own: Tensor) -> Tensor:
        """Return the sum of a tensor over the processes that share the task, each with its own users."""
        return own

    def held_out_sse(self) -> float:
        """Return the squared error of the present parameters over what is held out, of all processes."""
        judged = (self.held_out, None) if self.inputs.sparse else (self.inputs.ratings, self.held_out)
        return float(self.total(mf_sse(*self.inputs[:5], *judged)))

    def to(self, device: str) -> Task:
        """Return the task on a device."""
        return self._replace(inputs=on_device(self.inputs, device), held_out=self.held_out.to(device))


def make_task(options: TrainOptions) -> Task:
    """Make the task that the options ask for, on the CPU.

    Raises:
        UsageError: the data cannot be read, or has its own size and density and one was given.
        DataUnavailable: the data set is not installed.
    """
    if options.data == "seed":
        reg = NOTEBOOK_REG if options.reg is None else options.reg
        return notebook_task(options.size or NOTEBOOK_SIZE, options.rank, options.fraction, options.seed, reg)
    datasets.forget()
    ratings = _ratings(options)
    spec = _spec(options, ratings.shape, ratings.observed / max(1, math.prod(ratings.shape)))
    layout = resolve(spec, options.device).layout
    return rating_task(ratings, options.rank, options.seed, options.reg, options.holdout, layout)


def notebook_task(
    size: tuple[int, int] = NOTEBOOK_SIZE,
    rank: int = 30,
    density: float = 0.8,
    seed: int = 1,
    reg: float = NOTEBOOK_REG,
) -> Task:
    """Make the notebook's task: uniform ratings, standard-normal start, judged by the unobserved entries."""
    case = Case(
        suite="train", m=size[0], n=size[1], rank=rank, density=density, ratings_dtype="float64", mask="int32",
        data="seed", seed=seed,
    )  # fmt: skip
    inputs = draw(case)._replace(reg=reg)
    assert inputs.mask is not None  # the case has one
    return Task("seed", inputs, (inputs.mask == 0).to(torch.uint8))


def rating_task(
    ratings: Ratings, rank: int = 30, seed: int = 1, reg: float | None = None, holdout: float = 0.1,
    layout: Layout = "dense",
) -> Task:  # fmt: skip
    """Hold out a random part of ratings; training starts at the mean, with small factors and no biases.

    Without `reg`, it is the `noise_level` of the other part.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    (m, n), count = ratings.shape, ratings.observed
    chosen, kept = torch.randperm(count, generator=generator, device="cpu").tensor_split([round(holdout * count)])
    values = ratings.matrix.values()[kept].double()
    mean = values.sum() / max(1, len(kept))
    reg = noise_level(values, m, n) if reg is None else reg
    p, q = (
        torch.randn((rows, rank), generator=generator, dtype=torch.float32, device="cpu") * START_SCALE
        for rows in (m, n)
    )
    trained, held_out = matrices.split(ratings.matrix, chosen)
    inputs = Inputs(
        p,
        q,
        torch.zeros(m, 1, dtype=torch.float32, device="cpu"),
        torch.zeros(n, 1, dtype=torch.float32, device="cpu"),
        mean.float().reshape(1),
        trained,
        None,
        reg,
    )
    if layout == "sparse":
        return Task(ratings.name, inputs, held_out, ratings.users, ratings.items)
    matrix, _ = matrices.to_dense(ratings.matrix)
    mask, held_out_mask = (matrices.to_dense(part)[1] for part in (trained, held_out))
    inputs = inputs._replace(ratings=matrix, mask=mask)
    return Task(ratings.name, inputs, held_out_mask, ratings.users, ratings.items)


def noise_level(values: Tensor, m: int, n: int) -> float:
    """Return the largest singular value that noise in ratings would have, the default weight of the squared norms.

    With that weight W, the least loss has the singular values of the factors' product less by W, or 0 (Mazumder,
    Hastie and Tibshirani, Spectral regularization algorithms for learning large incomplete matrices, 2010), so that
    what noise alone would teach vanishes. Independent noise of deviation s at N places of an m × n matrix has singular
    values up to about s (√(N / m) + √(N / n)). W is proportional to the ratings, as the optimum is.

    Args:
        values: (N,) float64, the ratings.
        m: users.
        n: items.
    """
    count = len(values)
    deviation = float(values.std(correction=0)) if count else 0.0
    return NOISE * deviation * (math.sqrt(count / max(1, m)) + math.sqrt(count / max(1, n)))


def _ratings(options: TrainOptions) -> Ratings:
    if options.data in DRAWN:
        size = options.size or NOTEBOOK_SIZE
        return Ratings(
            draw(_spec(options, size, options.fraction).sized(*size, options.fraction, "sparse")).ratings,
            options.data,
        )
    refuse_shape(options.data, [name for name in ("size", "density") if getattr(options, name) is not None])
    return datasets.load(options.data)


def _spec(options: TrainOptions, size: tuple[int, int], density: float) -> CaseSpec:
    return CaseSpec(
        suite="train", size=size, rank=0, density=density, layout=options.layout, ratings_dtype="float32",
        mask="uint8", data=options.data, seed=options.seed,
    )  # fmt: skip
