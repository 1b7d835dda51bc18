"""Problems drawn at random across sizes, dtypes, mask kinds, memory layouts and densities."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from mfbench.problems.inputs import Inputs

SIZES = (1, 2, 5, 15, 16, 17, 31, 33, 47, 48, 49, 63, 64, 65, 95, 97, 127, 128, 129, 145, 193)  # around tile sizes
RANKS = (1, 2, 6, 7, 8, 14, 15, 16, 30, 31, 33, 62, 63, 64, 65, 97, 126, 130)
RATINGS_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.uint8, torch.int8)
MASK_DTYPES = (torch.uint8, torch.bool, None, torch.int32, torch.float32, torch.int64, torch.int8, torch.float64,
               torch.float16, torch.int16)  # fmt: skip
LAYOUTS = ("contiguous", "transposed", "strided", "expanded")
DENSITIES = (0.8, 0.05, 1.0, 0.5, 0.0)
LONG_WALK = (40960, 2048, 6)  # users, items, rank: 640 blocks of 64 users
SCALES = (1.0, 1e-3, 1e3)  # of parameters and ratings


class Recipe(NamedTuple):
    """What a problem is drawn from, apart from its random numbers."""

    m: int
    n: int
    rank: int
    dtype: torch.dtype  # of the parameters
    scale: float
    ratings_dtype: torch.dtype
    mask_dtype: torch.dtype | None  # None: NaN marks unobserved ratings
    layout: str
    density: float

    def __str__(self) -> str:
        dtype, ratings, mask = map(_name, (self.dtype, self.ratings_dtype, self.mask_dtype))
        return (
            f"{self.m}x{self.n} rank {self.rank}, {dtype} parameters x {self.scale:g}, {ratings} ratings, "
            f"{self.layout}, {self.density:g} observed by {mask} mask"
        )


class RandomProblem(NamedTuple):
    """The inputs of a step and a description of them for error messages."""

    description: str
    inputs: Inputs


def draw(count: int, seed: int) -> Iterator[RandomProblem]:
    """Draw problems that cycle through all dtypes, layouts, densities and scales, with random sizes and values.

    Unobserved ratings are NaN or infinite where the dtype allows it; some rows and columns have no rating.
    """
    choose = random.Random(seed)
    generator = torch.Generator("cpu").manual_seed(seed)
    for number in range(count):
        recipe = Recipe(
            m=choose.choice(SIZES),
            n=choose.choice(SIZES),
            rank=choose.choice(RANKS),
            dtype=torch.float64 if number % 7 == 3 else torch.float32,
            scale=SCALES[number // 5 % len(SCALES)],
            ratings_dtype=RATINGS_DTYPES[number % len(RATINGS_DTYPES)],
            mask_dtype=MASK_DTYPES[number % len(MASK_DTYPES)],
            layout=LAYOUTS[number // 2 % len(LAYOUTS)],
            density=DENSITIES[number // 3 % len(DENSITIES)],
        )
        yield RandomProblem(str(recipe), make(recipe, generator))


def long_walk(seed: int) -> RandomProblem:
    """Draw a problem on which sums that are always rounded the same way drift most.

    Everything is positive but the ratings, which are 0, so that no errors cancel; and there are so many users that each
    program of a GPU walks all items, whereas a small matrix is divided until a program has a tile or two.
    """
    m, n, rank = LONG_WALK
    generator = torch.Generator("cpu").manual_seed(seed)
    P, Q = (torch.randn((rows, rank), generator=generator, device="cpu").abs() for rows in (m, n))
    bu, bi, mu = (torch.zeros(shape, device="cpu") for shape in ((m, 1), (n,), ()))
    ratings = torch.zeros((m, n), dtype=torch.uint8, device="cpu")
    return RandomProblem(f"{m}x{n} rank {rank}, errors of one sign", Inputs(P, Q, bu, bi, mu, ratings, None))


def make(recipe: Recipe, generator: torch.Generator) -> Inputs:
    """Draw the inputs of a recipe, on the CPU."""
    m, n, rank, dtype, scale, ratings_dtype, mask_dtype, layout, density = recipe
    shapes = ((m, rank), (n, rank), (m, 1), (n,), ())
    P, Q, bu, bi, mu = (torch.randn(shape, generator=generator, dtype=dtype, device="cpu") * scale for shape in shapes)
    observed = torch.rand((m, n), generator=generator, device="cpu") < density
    observed[:, n // 2] = False
    if density < 0.5:
        observed[[0, -1]] = False
    observed[m // 3] |= density > 0
    if ratings_dtype.is_floating_point:
        ratings = (torch.randint(0, 11, (m, n), generator=generator, device="cpu") / 2 * scale).to(ratings_dtype)
        unobservable = torch.tensor([float("nan"), float("inf"), -float("inf")], dtype=ratings_dtype, device="cpu")
        if mask_dtype is None:
            unobservable = unobservable[:1]
        ratings = torch.where(observed, ratings, unobservable[torch.arange(n, device="cpu") % len(unobservable)])
    else:
        ratings = torch.randint(0, 11, (m, n), generator=generator, device="cpu").to(ratings_dtype)
    mask = None
    if mask_dtype is not None:  # in a bool or integer mask any value but 0 means observed
        values = torch.randint(1, 100, (m, n), generator=generator, device="cpu")
        if mask_dtype.is_floating_point:  # weights, of either sign
            values = (values - 50.5) / 16
        mask = (values * observed).to(mask_dtype)
    if layout == "expanded":
        ratings, mask = ratings[:1].expand(m, n), None if mask is None else mask[:1].expand(m, n)
    else:
        ratings, mask = _laid_out(ratings, layout), None if mask is None else _laid_out(mask, layout)
    P, bu = _laid_out(P, layout), _laid_out(bu, layout)
    return Inputs(P, Q, bu, bi, mu, ratings, mask)


def _laid_out(tensor: Tensor, layout: str) -> Tensor:
    """Return the same values in another memory layout."""
    if layout == "transposed":
        return tensor.T.contiguous().T
    if layout == "strided":
        wide = tensor.new_empty(tensor.shape[0] * 2, tensor.shape[1] * 3)
        wide[::2, 1::3] = tensor
        return wide[::2, 1::3]
    return tensor


def _name(dtype: torch.dtype | None) -> str:
    return "no" if dtype is None else str(dtype).removeprefix("torch.")
