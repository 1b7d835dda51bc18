"""The tensors of a case: drawn from its seed, or read from its data set."""

from __future__ import annotations

import mmap
import secrets
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mfbench.problems import datasets
from mfbench.problems.cases import DRAWN, Case, CaseSpec

STARS = 10  # ratings are half stars from 0.5 to 5, as in MovieLens; whole numbers from 1 to 10 in integer dtypes
BLOCK = 64  # users and items of a block that is observed as a whole or not at all
ALIGNMENT = 64  # bytes, as PyTorch aligns its memory
PRIVATE: dict[str, Any] = (
    {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
)  # as the C library maps memory
BLOCK_ELEMENTS = 1 << 22  # most elements drawn or summed at once, so that neither needs a second matrix


class Inputs(NamedTuple):
    """Arguments of a provider, in order. Not `reference.Problem`, which `--against` takes from another revision."""

    user_factors: Tensor  # (m, k)
    item_factors: Tensor  # (n, k)
    user_bias: Tensor  # (m, 1)
    item_bias: Tensor  # (n, 1)
    global_bias: Tensor  # (1,)
    ratings: Tensor  # (m, n)
    mask: Tensor | None  # (m, n), weights if it is a float one
    reg: float = 0.1

    @property
    def weighted(self) -> bool:
        """The mask holds weights, by which errors are multiplied."""
        return self.mask is not None and self.mask.is_floating_point()

    @property
    def observed(self) -> int:
        """Number of observed ratings."""
        if self.mask is not None:
            return int(self.mask.count_nonzero())
        return sum(rows.numel() - int(rows.isnan().count_nonzero()) for rows in row_blocks(self.ratings))

    def of_users(self, users: slice) -> Inputs:
        """Return views of the inputs of some users, all items included."""
        return self._replace(
            user_factors=self.user_factors[users],
            user_bias=self.user_bias[users],
            ratings=self.ratings[users],
            mask=None if self.mask is None else self.mask[users],
        )


def block_slices(m: int, n: int, elements: int = BLOCK_ELEMENTS) -> Iterator[slice]:
    """Yield slices of the m rows of a matrix with n columns: blocks of at most `elements` elements, or of one row."""
    rows = max(1, elements // max(1, n))
    return (slice(start, min(m, start + rows)) for start in range(0, m, rows))


def row_blocks(matrix: Tensor) -> Iterator[Tensor]:
    """Yield views of a tensor, block by block along its first dimension, to bound the memory of temporaries."""
    m = len(matrix)
    return (matrix[rows] for rows in block_slices(m, matrix.numel() // max(1, m)))


def resolve(spec: CaseSpec) -> Case:
    """Return the case of a specification, with the size and density of its data set if it has one.

    The data set may be too large for memory.

    Raises:
        UsageError: there is no such data set or file, or it cannot be read.
        DataUnavailable: the data set is not installed.
    """
    if spec.size is not None and spec.density is not None:
        return spec.sized(*spec.size, spec.density)
    datasets.refuse_pipe(spec.data)  # the providers' processes load the data, too
    try:
        ratings = datasets.load(spec.data)
    except datasets.DataTooLarge as error:
        return spec.sized(*error.shape, error.density)
    m, n = ratings.values.shape
    return spec.sized(m, n, float(ratings.mask.count_nonzero()) / max(1, m * n))


def draw(case: Case) -> Inputs:
    """Draw the inputs of a case from its seed, on the CPU.

    Raises:
        UsageError, DataUnavailable: as `resolve`.
    """
    generator = torch.Generator("cpu").manual_seed(case.seed)
    ratings_dtype = getattr(torch, case.ratings_dtype)
    if case.data == "seed":
        ratings, mask = _seed_ratings(case, generator)
    elif case.data in DRAWN:
        ratings, mask = _synthetic_ratings(case, ratings_dtype, generator)
    else:
        ratings, mask = datasets.load(case.data)[:2]
    ratings = ratings.to(ratings_dtype)
    parameters = _parameters(case, generator)
    if case.mask == "none":
        if case.data not in DRAWN:
            ratings = ratings.clone()  # the data set is kept for other cases
        return Inputs(**parameters, ratings=ratings.masked_fill_(mask == 0, float("nan")), mask=None)
    return Inputs(**parameters, ratings=ratings, mask=mask.to(getattr(torch, case.mask)))


def redraw_parameters(case: Case, draw_number: int) -> dict[str, Any]:
    """Draw other parameters of the same distribution; returns them by name."""
    return _parameters(case, torch.Generator("cpu").manual_seed(draw_number))


def _parameters(case: Case, generator: torch.Generator) -> dict[str, Any]:
    """Draw the notebook's standard-normal start, in its order."""
    shapes = {
        "global_bias": (1,),
        "user_bias": (case.m, 1),
        "item_bias": (case.n, 1),
        "user_factors": (case.m, case.rank),
        "item_factors": (case.n, case.rank),
    }
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
        for name, shape in shapes.items()
    }


def _seed_ratings(case: Case, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw the notebook's ratings, uniform on [0, 5) in float64, and its int32 mask."""
    ratings = torch.rand((case.m, case.n), generator=generator, dtype=torch.float64, device="cpu").mul_(5)
    return ratings, (
        torch.rand((case.m, case.n), generator=generator, dtype=torch.float32, device="cpu")
        > round(1 - case.density, 9)
    ).int()


def _synthetic_ratings(case: Case, dtype: torch.dtype, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    ratings = torch.empty((case.m, case.n), dtype=dtype, device="cpu")
    mask = torch.empty((case.m, case.n), dtype=torch.uint8, device="cpu")
    step = 0.5 if dtype.is_floating_point else 1
    for users in block_slices(case.m, case.n):
        shape = mask[users].shape
        ratings[users] = torch.randint(1, STARS + 1, shape, generator=generator, device="cpu") * step
        mask[users] = torch.rand(shape, generator=generator, dtype=torch.float32, device="cpu") < case.density
    return ratings, _blocks(case, generator) if case.data == "blocks" else mask


def _blocks(case: Case, generator: torch.Generator) -> Tensor:
    """Draw a mask of the case's density, rounded to whole blocks."""
    down, across = -(-case.m // BLOCK), -(-case.n // BLOCK)
    observed = torch.zeros(down * across, dtype=torch.uint8, device="cpu")
    observed[
        torch.randperm(len(observed), generator=generator, device="cpu")[: round(case.density * len(observed))]
    ] = 1
    blocks = observed.reshape(down, across).repeat_interleave(BLOCK, dim=0)[: case.m]
    return blocks.repeat_interleave(BLOCK, dim=1)[:, : case.n].contiguous()


def on_device(inputs: Inputs, device: str) -> Inputs:
    """Return the inputs with every tensor on the device."""
    tensors: dict[str, Any] = {
        name: value.to(device) for name, value in inputs._asdict().items() if isinstance(value, Tensor)
    }
    return inputs._replace(**tensors)


def moved(inputs: Inputs) -> Inputs:
    """Copy the inputs to unused memory, each tensor at a random offset from the start of a page.

    A new mapping gets new pages; the C library would often return the memory that was freed last.
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
    """Return two sums of each tensor's bit patterns, by name, which reveal whether somebody wrote to it."""
    return {
        name: _fingerprint(value)
        for name, value in zip(Inputs._fields, inputs, strict=True)
        if isinstance(value, Tensor)
    }


def _fingerprint(tensor: Tensor) -> tuple[int, int]:
    integer = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    bits = torch.atleast_1d(tensor.detach().view(integer))
    return _sum(bits), _sum(bits[::7])


def _sum(integers: Tensor) -> int:
    """Sum in blocks: PyTorch would widen the whole tensor to int64 first."""
    return sum(int(block.sum(dtype=torch.int64)) for block in row_blocks(integers))
