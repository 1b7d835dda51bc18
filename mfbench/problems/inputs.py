"""The tensors of a case: drawn from its seed, or read from its data set."""

from __future__ import annotations

import mmap
import secrets
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mfbench.problems import datasets
from mfbench.problems.cases import FIXED_SIZE, Case

STARS = 10  # ratings are half stars from 0.5 to 5, as MovieLens' are; whole numbers from 1 to 10 in integer dtypes
BLOCK = 64  # users and items of a block that is observed or not as a whole
ALIGNMENT = 64  # bytes, PyTorch's own
PRIVATE: dict[str, Any] = (
    {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
)  # as the C library maps what it allocates
ROWS_AT_ONCE = 1 << 22  # elements drawn together, so that drawing needs no second matrix


class Inputs(NamedTuple):
    """Arguments of a provider, in order. Not `reference.Problem`: with --against that package is of another revision."""

    user_factors: Tensor  # (m, k)
    item_factors: Tensor  # (n, k)
    user_bias: Tensor  # (m, 1)
    item_bias: Tensor  # (n, 1)
    global_bias: Tensor  # (1,)
    ratings: Tensor  # (m, n)
    mask: Tensor | None  # (m, n)
    reg: float = 0.1

    @property
    def observed(self) -> int:
        """How many ratings are."""
        return int(self.ratings.isnan().logical_not().sum() if self.mask is None else self.mask.count_nonzero())


def sized(case: Case) -> Case:
    """The case with the size and density of its data filled in."""
    if case.data in FIXED_SIZE:
        return case
    ratings = datasets.load(case.data)
    m, n = ratings.values.shape
    density = float(ratings.mask.count_nonzero()) / max(1, m * n)
    return case.model_copy(update={"m": m, "n": n, "density": density})


def draw(case: Case) -> Inputs:
    """Inputs of a case, with its size filled in, on the CPU."""
    generator = torch.Generator().manual_seed(case.seed)
    ratings_dtype = getattr(torch, case.ratings_dtype)
    if case.data == "seed":
        ratings, mask = _seed_ratings(case, generator)
    elif case.data in FIXED_SIZE:
        ratings, mask = _synthetic_ratings(case, ratings_dtype, generator)
    else:
        ratings, mask = datasets.load(case.data)[:2]
    ratings = ratings.to(ratings_dtype)
    parameters = _parameters(case, generator)
    if case.mask == "none":
        return Inputs(**parameters, ratings=ratings.masked_fill(mask == 0, float("nan")), mask=None)
    return Inputs(**parameters, ratings=ratings, mask=mask.to(getattr(torch, case.mask)))


def redraw_parameters(case: Case, draw_number: int) -> dict[str, Any]:
    """Other parameters of the same kind, by name."""
    return _parameters(case, torch.Generator().manual_seed(draw_number))


def _parameters(case: Case, generator: torch.Generator) -> dict[str, Any]:
    """The notebook's standard-normal start, in its order of drawing."""
    shapes = {
        "global_bias": (1,),
        "user_bias": (case.m, 1),
        "item_bias": (case.n, 1),
        "user_factors": (case.m, case.rank),
        "item_factors": (case.n, case.rank),
    }
    return {name: torch.randn(shape, generator=generator, dtype=torch.float32) for name, shape in shapes.items()}


def _seed_ratings(case: Case, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The notebook's: uniform on [0, 5) in float64, and an int32 mask."""
    ratings = torch.rand((case.m, case.n), generator=generator, dtype=torch.float64) * 5
    return ratings, (
        torch.rand((case.m, case.n), generator=generator, dtype=torch.float32) > round(1 - case.density, 9)
    ).int()


def _synthetic_ratings(case: Case, dtype: torch.dtype, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    ratings = torch.empty((case.m, case.n), dtype=dtype)
    mask = torch.empty((case.m, case.n), dtype=torch.uint8)
    step = 0.5 if dtype.is_floating_point else 1
    rows = max(1, ROWS_AT_ONCE // max(1, case.n))
    for i in range(0, case.m, rows):
        shape = mask[i : i + rows].shape
        ratings[i : i + rows] = torch.randint(1, STARS + 1, shape, generator=generator) * step
        mask[i : i + rows] = torch.rand(shape, generator=generator, dtype=torch.float32) < case.density
    return ratings, _blocks(case, generator) if case.data == "blocks" else mask


def _blocks(case: Case, generator: torch.Generator) -> Tensor:
    """A mask of the case's density, rounded to whole blocks."""
    down, across = -(-case.m // BLOCK), -(-case.n // BLOCK)
    observed = torch.zeros(down * across, dtype=torch.uint8)
    observed[torch.randperm(len(observed), generator=generator)[: round(case.density * len(observed))]] = 1
    blocks = observed.reshape(down, across).repeat_interleave(BLOCK, dim=0)[: case.m]
    return blocks.repeat_interleave(BLOCK, dim=1)[:, : case.n].contiguous()


def on_device(inputs: Inputs, device: str) -> Inputs:
    """The same inputs with every tensor on the device."""
    tensors: dict[str, Any] = {
        name: value.to(device) for name, value in inputs._asdict().items() if isinstance(value, Tensor)
    }
    return inputs._replace(**tensors)


def moved(inputs: Inputs) -> Inputs:
    """Copies in memory that was not in use, each at a random offset from a page's start.

    A fresh mapping gets fresh pages; what the C library allocates would often be the memory that was freed last.
    """
    tensors: dict[str, Any] = {
        name: _moved(value) for name, value in inputs._asdict().items() if isinstance(value, Tensor)
    }
    return inputs._replace(**tensors)


def _moved(tensor: Tensor) -> Tensor:
    if tensor.device.type != "cpu" or not tensor.numel():
        return tensor.detach().clone()
    offset = ALIGNMENT * secrets.randbelow(mmap.PAGESIZE // ALIGNMENT)
    pages = mmap.mmap(-1, offset + tensor.nbytes, **PRIVATE)
    return (
        torch.frombuffer(pages, dtype=tensor.dtype, count=tensor.numel(), offset=offset)
        .view_as(tensor)
        .copy_(tensor.detach())
    )


Fingerprints = dict[str, tuple[int, int]]


def fingerprints(inputs: Inputs) -> Fingerprints:
    """By name, enough of every tensor's bits to see that somebody wrote to it: two sums of its bit patterns."""
    return {
        name: _fingerprint(value)
        for name, value in zip(Inputs._fields, inputs, strict=True)
        if isinstance(value, Tensor)
    }


def _fingerprint(tensor: Tensor) -> tuple[int, int]:
    integer = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    bits = tensor.detach().view(integer)
    return int(bits.sum(dtype=torch.int64)), int(bits[::7].sum(dtype=torch.int64)) if bits.dim() else 0
