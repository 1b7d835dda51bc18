"""The tensors of a case: drawn from its seed, or read from its data set."""

from __future__ import annotations

import mmap
import secrets
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from mfbench.problems import matrices, power_law
from mfbench.problems.free_memory import free_memory

if TYPE_CHECKING:
    from mfbench.problems.cases import Case, CaseSpec, Layout

STARS = 10  # ratings are half stars from 0.5 to 5, as in MovieLens; whole numbers from 1 to 10 in integer dtypes
ZERO_EVERY = 31  # one rating in so many is 0, as some scales have it: what takes 0 for missing must not pass the gate
WEIGHTS = 8  # weights of a float mask are quarters from 0.25 to 2
BLOCK = 64  # users and items of a block that is observed as a whole or not at all
ALIGNMENT = 64  # bytes, as PyTorch aligns its memory
PRIVATE: dict[str, Any] = (
    {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
)  # as the C library maps memory
BLOCK_ELEMENTS = 1 << 22  # most elements drawn or summed at once, so that neither needs a second matrix
# Density below which the layout "auto" is sparse, by device: those of `kernels.encoding`, which an older revision under
# `--against` lacks. docs/sparse.md has the measurements.
SPARSE_BELOW = {"cpu": 0.28, "cuda": 0.03}
DENSE_SHARE = 1 / 3  # of the free memory, for a matrix and a mask in place of sparse ratings: a step needs the rest


class MatrixTooLarge(MemoryError):
    """Sparse ratings do not fit into memory as a dense matrix; the message has the sum."""


class Inputs(NamedTuple):
    """Arguments of a provider, in order. Not `reference.Problem`, which `--against` takes from another revision."""

    user_factors: Tensor  # (m, k)
    item_factors: Tensor  # (n, k)
    user_bias: Tensor  # (m, 1)
    item_bias: Tensor  # (n, 1)
    global_bias: Tensor  # (1,)
    ratings: Tensor  # (m, n), dense or torch.sparse_csr
    mask: Tensor | None  # (m, n), weights if it is a float one; None beside sparse ratings
    reg: float = 0.1

    @property
    def weighted(self) -> bool:
        """The mask's numbers are weights, by which errors are multiplied."""
        return self.mask is not None and self.mask.is_floating_point()

    @property
    def needs_weights(self) -> bool:
        """Some weights are neither 0 nor 1, so that it matters."""
        mask = self.mask
        return mask is not None and self.weighted and not torch.equal(mask, (mask != 0).to(mask.dtype))

    @property
    def sparse(self) -> bool:
        """The ratings are torch.sparse_csr."""
        return matrices.is_sparse(self.ratings)

    @property
    def observed(self) -> int:
        """Number of observed ratings."""
        if self.sparse:
            return self.ratings.values().numel()
        if self.mask is not None:
            return int(self.mask.count_nonzero())
        return sum(rows.numel() - int(rows.isnan().count_nonzero()) for rows in row_blocks(self.ratings))

    def of_users(self, users: slice) -> Inputs:
        """Return views of the inputs of some users, all items included."""
        return self._replace(
            user_factors=self.user_factors[users],
            user_bias=self.user_bias[users],
            ratings=matrices.rows(self.ratings, users),
            mask=None if self.mask is None else self.mask[users],
        )

    def user_blocks(self, elements: int) -> Iterator[slice]:
        """Yield slices of the users with at most `elements` places, or ratings if these are sparse; one at least."""
        m, n = self.ratings.shape
        if not self.sparse:
            yield from block_slices(m, n, elements)
            return
        starts, first = self.ratings.crow_indices(), 0
        while first < m:
            stop = int(torch.searchsorted(starts, int(starts[first]) + elements, right=True)) - 1
            stop = min(max(stop, first + 1), m)
            yield slice(first, stop)
            first = stop

    def dense(self) -> Inputs:
        """Return the same inputs with a matrix and a uint8 mask in place of sparse ratings.

        Raises:
            MatrixTooLarge: they take more than a third of the free memory of the host, so that a step may lack it.
        """
        if not self.sparse:
            return self
        m, n = self.ratings.shape
        need, free = m * n * (self.ratings.dtype.itemsize + 1), free_memory()
        if need > DENSE_SHARE * free:
            raise MatrixTooLarge(
                f"it takes dense ratings alone, and {m:,} users × {n:,} items need {need / 1e9:.1f} GB as a matrix and "
                f"a mask, more than a third of the {free / 1e9:.1f} GB that are free"
            )
        ratings, mask = matrices.to_dense(self.ratings)
        return self._replace(ratings=ratings, mask=mask)


def block_slices(m: int, n: int, elements: int = BLOCK_ELEMENTS) -> Iterator[slice]:
    """Yield slices of the m rows of a matrix with n columns: blocks of at most `elements` elements, or of one row."""
    rows = max(1, elements // max(1, n))
    return (slice(start, min(m, start + rows)) for start in range(0, m, rows))


def row_blocks(matrix: Tensor) -> Iterator[Tensor]:
    """Yield views of a tensor, block by block along its first dimension, to bound the memory of temporaries."""
    m = len(matrix)
    return (matrix[rows] for rows in block_slices(m, matrix.numel() // max(1, m)))


def resolve(spec: CaseSpec, device: str = "cpu") -> Case:
    """Return the case of a specification, with the size and density of its data set if it has one, and a layout.

    The layout "auto" is sparse where a matrix would take more than a third of the free memory, or where the sparse
    kernel is the faster one at that density. It is dense where the mask is not the default one, and for `blocks` and
    `seed`, which are about masks.

    Args:
        device: "cpu" or "cuda", where the case is measured.

    Raises:
        UsageError: there is no such data set or file, or it cannot be read.
        DataUnavailable: the data set is not installed.
    """
    if spec.size is not None and spec.density is not None:
        (m, n), density = spec.size, spec.density
    else:
        from mfbench.problems import datasets  # here, as `gpu-check` draws inputs where readers' packages are missing

        ratings = datasets.load(spec.data)
        m, n = ratings.shape
        density = ratings.observed / max(1, m * n)
    return spec.sized(m, n, density, _layout(spec, m * n, density, device))


def _layout(spec: CaseSpec, places: int, density: float, device: str) -> Layout:
    if spec.layout != "auto":
        return spec.layout
    if spec.mask != "uint8" or spec.data in ("blocks", "seed"):
        return "dense"
    size = places * (getattr(torch, spec.ratings_dtype).itemsize + 1)
    too_large = size > DENSE_SHARE * free_memory()
    return "sparse" if too_large or density < SPARSE_BELOW[device] else "dense"


def draw(case: Case) -> Inputs:
    """Draw the inputs of a case from its seed, on the CPU.

    Raises:
        UsageError, DataUnavailable: as `resolve`.
    """
    generator = torch.Generator("cpu").manual_seed(case.seed)
    ratings_dtype = getattr(torch, case.ratings_dtype)
    ratings, mask = _draw_ratings(case, ratings_dtype, generator)
    parameters = _parameters(case, generator)
    if case.sparse:
        return Inputs(**parameters, ratings=ratings, mask=None)
    assert mask is not None  # dense ratings are drawn with one
    if case.mask == "none":
        return Inputs(**parameters, ratings=ratings.masked_fill_(mask == 0, float("nan")), mask=None)
    mask = mask.to(getattr(torch, case.mask))
    if mask.is_floating_point():
        _weigh(mask, generator)
    return Inputs(**parameters, ratings=ratings, mask=mask)


def _draw_ratings(case: Case, dtype: torch.dtype, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
    """Return the ratings in the case's layout and dtype, and the mask of dense ones."""
    if case.data in ("blocks", "seed") or (case.data == "synthetic" and not case.sparse):
        ratings, mask = _seed_ratings(case, generator) if case.data == "seed" else _matrix(case, dtype, generator)
        ratings = ratings.to(dtype)
        return (matrices.to_sparse(ratings, mask), None) if case.sparse else (ratings, mask)
    if case.data == "synthetic":
        matrix = matrices.stacked(_blocks_of_users(case, dtype, generator), (case.m, case.n))
    elif case.data == "power-law":
        matrix = power_law.draw(case.m, case.n, case.expected_ratings, generator)
        matrix = matrices.with_values(matrix, _stars(matrix.values().shape, dtype, generator))
    else:
        from mfbench.problems import datasets

        loaded = datasets.load(case.data).matrix
        matrix = matrices.with_values(loaded, loaded.values().to(dtype))
    return (matrix, None) if case.sparse else matrices.to_dense(matrix)


def _weigh(mask: Tensor, generator: torch.Generator) -> None:
    """Multiply a mask of zeros and ones by drawn weights, so that what takes weights for a binary mask is wrong."""
    for rows in row_blocks(mask):
        rows *= torch.randint(1, WEIGHTS + 1, rows.shape, generator=generator, device="cpu") / 4


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


def _matrix(case: Case, dtype: torch.dtype, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw half stars everywhere, and a uint8 mask."""
    ratings = torch.empty((case.m, case.n), dtype=dtype, device="cpu")
    mask = torch.empty((case.m, case.n), dtype=torch.uint8, device="cpu")
    blocks = _blocks_of_users(case, dtype, generator)
    for users, (drawn, observed) in zip(block_slices(case.m, case.n), blocks, strict=True):
        ratings[users], mask[users] = drawn, observed
    return ratings, _blocks(case, generator) if case.data == "blocks" else mask


def _blocks_of_users(case: Case, dtype: torch.dtype, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield half stars and a mask of some users at a time, the same for either layout."""
    for users in block_slices(case.m, case.n):
        shape = (users.stop - users.start, case.n)
        ratings = _stars(shape, dtype, generator)
        observed = torch.rand(shape, generator=generator, dtype=torch.float32, device="cpu") < case.density
        yield ratings, observed


def _stars(shape: Sequence[int], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    """Draw half stars, or whole numbers in integer dtypes; one in `ZERO_EVERY` is 0."""
    stars = torch.randint(1, STARS + 1, shape, generator=generator, device="cpu")
    stars.view(-1)[ZERO_EVERY - 1 :: ZERO_EVERY] = 0
    return (stars * (0.5 if dtype.is_floating_point else 1)).to(dtype)


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
        name: matrices.with_parts(value, [copied(part) for part in matrices.parts(value)])
        for name, value in inputs._asdict().items()
        if isinstance(value, Tensor)
    }
    return inputs._replace(**tensors)


def copied(tensor: Tensor) -> Tensor:
    """Return a copy of a strided tensor in unused memory, at a random offset from the start of a page."""
    if tensor.device.type != "cpu" or not tensor.numel():
        return tensor.detach().clone()
    offset = ALIGNMENT * secrets.randbelow(mmap.PAGESIZE // ALIGNMENT)
    pages = mmap.mmap(-1, offset + tensor.nbytes, **PRIVATE)
    return (
        torch.frombuffer(pages, dtype=tensor.dtype, count=tensor.numel(), offset=offset)
        .view_as(tensor)
        .copy_(tensor.detach())
    )


Fingerprints = dict[str, tuple[int, ...]]


def fingerprints(inputs: Inputs) -> Fingerprints:
    """Return two sums of the bits of each part of every tensor, by name, which reveal whether somebody wrote to it."""
    return {
        name: tuple(total for part in matrices.parts(value) for total in _fingerprint(part))
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
