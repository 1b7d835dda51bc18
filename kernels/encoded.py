"""Encoded ratings: what a step takes in the place of ratings and mask, and files hold."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kernels import csr
from kernels.decoding import row_chunks
from kernels.problem import Observations, check_tensor


class EncodedRatings(NamedTuple):
    """Ratings with their mask inside, accepted by the step as `ratings` with `mask=None`."""

    # Dense (m, n): floats, NaN where unobserved; uint8 codes, 255 where unobserved; or plain integers.
    # Sparse (observed,): floats, codes or integers.
    values: Tensor
    # Both layouts: uint8-code. Dense: bfloat16-nan, float16-nan, float32-nan, float64-nan, uint8-bits or int8-bits.
    # Sparse: bfloat16, float16, float32, float64, uint8 or int8.
    encoding: str
    levels: Tensor | None = None  # (2,) float64, scale and offset of codes: rating = code * scale + offset
    bits: Tensor | None = None  # (m, packed_words(n)) int32, the mask: bit c % 32 of word c // 32 is column c
    occupied: Tensor | None = None  # bool: which blocks of 16 users x 16 items hold an observed entry; None: any may
    rows: Tensor | None = None  # Sparse (m + 1,) int64: row i has the entries rows[i] to rows[i + 1]
    columns: Tensor | None = None  # Sparse (observed,) uint16, int32 or int64: items, rising in every row
    items: int = 0  # Sparse: n

    def __repr__(self) -> str:
        m, n = self.shape
        where = f"{self.nbytes:,} bytes on {self.values.device}"
        return f"EncodedRatings({m} users x {n} items, {self.layout}, {self.encoding}, {where})"

    @property
    def layout(self) -> str:
        """How the ratings are laid out: "dense" or "sparse"."""
        return "dense" if self.rows is None else "sparse"

    @property
    def shape(self) -> torch.Size:
        """Users and items: (m, n)."""
        return torch.Size(self.observations.shape)

    @property
    def observed(self) -> int:
        """Number of observed ratings; those of a dense layout are counted on each access."""
        if self.layout == "sparse":
            return self.values.numel()
        return sum(int((~missing).sum()) for _, missing in row_chunks(self.observations))

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors together."""
        return sum(part.nbytes for part in self if isinstance(part, Tensor))

    @property
    def observations(self) -> Observations:
        """The same ratings as the backends receive them."""
        values, _, levels, bits, occupied, rows, columns, items = self
        return Observations(values, bits, levels, bits is not None, occupied, rows, columns, items)

    def to(self, device: torch.device | str) -> EncodedRatings:
        """Return the ratings with every tensor on `device`."""

        def moved(part: Tensor | None) -> Tensor | None:
            return None if part is None else part.to(device)

        values, encoding, levels, bits, occupied, rows, columns, items = self
        others = moved(levels), moved(bits), moved(occupied), moved(rows), moved(columns)
        return EncodedRatings(values.to(device), encoding, *others, items)

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what pickle needs; it fails on uint16 tensors in PyTorch 2.13, which are passed as int16 instead."""
        parts = [_signed(part) if isinstance(part, Tensor) else part for part in self]
        return _restored, (tuple(parts), self.columns is not None and self.columns.dtype == torch.uint16)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the ratings to a file that `load` reads."""
        torch.save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: torch.device | str = "cpu") -> EncodedRatings:
        """Read a file written by `save`, by `torch.load` with `weights_only=True`: it cannot run code.

        Raises:
            OSError: the file cannot be read.
            ValueError: it does not hold encoded ratings.
        """
        try:
            loaded = torch.load(path, map_location=device, weights_only=True)
        except OSError:
            raise
        except Exception as error:  # what PyTorch's reader raises depends on the bytes that it meets
            raise ValueError(f"path: expected a file written by EncodedRatings.save, got {path}") from error
        if not isinstance(loaded, cls):
            raise ValueError(f"path: expected a file with EncodedRatings, got {type(loaded).__name__} in {path}")
        return loaded


def _signed(tensor: Tensor) -> Tensor:
    return tensor.view(torch.int16) if tensor.dtype == torch.uint16 else tensor


def _restored(parts: tuple[Any, ...], unsigned: bool) -> EncodedRatings:
    """Return the ratings of `EncodedRatings.__reduce__`."""
    ratings = EncodedRatings(*parts)
    if unsigned and ratings.columns is not None:
        return ratings._replace(columns=ratings.columns.view(torch.uint16))
    return ratings


# Tensors and names: nothing in them is executed. The strings are what files of earlier versions call them.
torch.serialization.add_safe_globals([
    *(EncodedRatings, _restored),
    *((EncodedRatings, "kernels.encoding.EncodedRatings"), (_restored, "kernels.encoding._restored")),
])  # fmt: skip


def check_no_mask(mask: Tensor | None) -> None:
    """Raise ValueError where sparse ratings come with a mask, TypeError where what comes in its place is no tensor."""
    if mask is not None:
        check_tensor("mask", mask)
        raise ValueError("mask: expected None, since every stored entry of sparse ratings is observed; got a mask")


def observations_of(ratings: Tensor | EncodedRatings, mask: Tensor | None) -> Observations:
    """Return `ratings` and `mask` as a caller passes them in one bundle.

    Raises:
        TypeError: sparse ratings are in another layout than CSR.
        ValueError: encoded or sparse ratings come with a mask.
    """
    if not isinstance(ratings, EncodedRatings):
        if not isinstance(ratings, Tensor) or ratings.layout is torch.strided:
            return Observations(ratings, mask)
        observations = csr.observations_of_csr(ratings)
        check_no_mask(mask)
        return observations
    if mask is not None:
        raise ValueError("mask: expected None, since encoded ratings carry their mask; got a second one")
    return ratings.observations
