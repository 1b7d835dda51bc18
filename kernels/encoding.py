"""Ratings that carry their mask: fewer bytes to read, nothing lost."""

from __future__ import annotations

import math
import os
import pickle
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor

from kernels.problem import OCCUPIED_BLOCK, WIDE_INTEGERS, Observations, check_ratings, packed_words

FLOAT_DTYPES = {
    "bfloat16-nan": torch.bfloat16, "float16-nan": torch.float16,
    "float32-nan": torch.float32, "float64-nan": torch.float64,
}  # fmt: skip
MISSING_CODE = 255
TILE = 64  # users and items of the tiles that are counted for WORTH_SKIPPING
WORTH_SKIPPING = 0.9  # tiles are skipped if at most this fraction of them holds an observed entry
CHUNK_ELEMENTS = 1 << 22  # ratings examined at a time
LARGEST_EXACT = {torch.float32: 1 << 24, torch.float64: 1 << 53}  # every integer up to this magnitude is exact


class EncodedRatings(NamedTuple):
    """Ratings with their mask inside, accepted by the step as `ratings` with `mask=None`."""

    values: Tensor  # (m, n): floats, NaN where unobserved; uint8 codes, 255 where unobserved; or plain integers
    encoding: str  # bfloat16-nan, float16-nan, float32-nan, float64-nan, uint8-code, uint8-bits or int8-bits
    levels: Tensor | None = None  # (2,) float64, scale and offset of codes: rating = code * scale + offset
    bits: Tensor | None = None  # (m, packed_words(n)) int32, the mask: bit c % 32 of word c // 32 is column c
    occupied: Tensor | None = None  # bool: which blocks of 16 users x 16 items hold an observed entry; None: any may

    @property
    def shape(self) -> torch.Size:
        """Users and items: (m, n)."""
        return self.values.shape

    @property
    def observed(self) -> int:
        """Number of observed ratings, counted on each access."""
        return sum(int((~missing).sum()) for _, missing in _row_chunks(self.observations))

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors together."""
        return sum(part.nbytes for part in self if isinstance(part, Tensor))

    @property
    def observations(self) -> Observations:
        """The same ratings as the backends receive them."""
        return Observations(self.values, self.bits, self.levels, self.bits is not None, self.occupied)

    def to(self, device: torch.device | str) -> EncodedRatings:
        """Return the ratings with every tensor on `device`."""
        values, encoding, *optional = self
        moved = (None if part is None else part.to(device) for part in optional)
        return EncodedRatings(values.to(device), encoding, *moved)

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
        except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
            raise ValueError(f"path: expected a file written by EncodedRatings.save, got {path}") from error
        if not isinstance(loaded, cls):
            raise ValueError(f"path: expected a file with EncodedRatings, got {type(loaded).__name__} in {path}")
        return loaded


torch.serialization.add_safe_globals([EncodedRatings])  # a tuple of tensors and a name: nothing in it is executed


def encode_ratings(ratings: Tensor, mask: Tensor | None = None, encoding: str | None = None) -> EncodedRatings:
    """Return ratings and mask together, in the fewest bytes that lose nothing.

    Bytes per rating: 1 as a code (ratings on an evenly spaced scale of at most 255 levels), 1.125 as an 8-bit integer
    beside a packed mask, 2, 4 or 8 as a float that is NaN where unobserved.

    Args:
        ratings: (m, n), of any dtype that the step accepts.
        mask: (m, n), non-zero where observed; None: NaN marks the unobserved entries. A float mask must hold 0 and 1:
            the encodings have no room for weights.
        encoding: a name listed at `EncodedRatings.encoding`; None: the smallest that fits.

    Raises:
        TypeError: an argument is not a tensor, or the ratings' dtype is not one that the step accepts.
        ValueError: the shapes differ, the mask holds weights, an observed rating is NaN or an integer that float64
            would round, or the requested encoding would lose something.
    """
    check_ratings(ratings, mask)
    ratings = ratings.detach()
    if mask is None:
        observed = ~torch.isnan(ratings)
    else:
        if mask.shape != ratings.shape:
            raise ValueError(f"mask: expected shape {tuple(ratings.shape)} as ratings, got {tuple(mask.shape)}")
        observed = mask != 0
        _check_binary(mask)
        if (torch.isnan(ratings) & observed).any():
            raise ValueError("ratings: expected no NaN at an observed entry, since NaN encodes 'missing'; got one")
    check_exact(Observations(ratings, mask), torch.float64)  # from here on, float64 stands for the ratings

    encoders: dict[str, Callable[[Tensor, Tensor, str], EncodedRatings | None]] = {"uint8-code": _as_codes}
    for dtype in (torch.uint8, torch.int8):
        if ratings.dtype in (dtype, *WIDE_INTEGERS):
            encoders[f"{str(dtype).removeprefix('torch.')}-bits"] = _with_bits
    encoders |= dict.fromkeys(FLOAT_DTYPES, _as_floats)
    if encoding is not None and encoding not in encoders:
        raise ValueError(f"encoding: expected one of {', '.join(encoders)} for {ratings.dtype}, got {encoding!r}")
    for name in encoders if encoding is None else [encoding]:
        encoded = encoders[name](ratings, observed, name)
        if encoded is not None:
            return encoded._replace(occupied=_occupied(observed))
    raise ValueError(f"encoding: expected one that loses nothing of these ratings, got {encoding!r}")


def _check_binary(mask: Tensor) -> None:
    """Raise ValueError where a float mask holds weights other than 0 and 1."""
    others = mask[(mask != 0) & (mask != 1)] if mask.is_floating_point() else mask[:0]
    if len(others):
        raise ValueError(
            f"mask: expected 0 and 1, since encoded ratings cannot carry weights, got {others.flatten()[0].item()}; "
            "pass the ratings and their weights without encoding them"
        )


def _occupied(observed: Tensor) -> Tensor | None:
    """Return which blocks hold an observed entry, if enough tiles are empty for skipping to pay."""
    rows, columns = observed.shape
    if 0 in (rows, columns):
        return None
    pixels = observed.to(torch.float32)[None]
    blocks = torch.nn.functional.max_pool2d(pixels, OCCUPIED_BLOCK, ceil_mode=True)
    tiles = torch.nn.functional.max_pool2d(blocks, TILE // OCCUPIED_BLOCK, ceil_mode=True)
    return blocks[0] > 0 if tiles.mean() < WORTH_SKIPPING else None


def _lossless(values: Tensor, ratings: Tensor, observed: Tensor) -> bool:
    """Return whether values (of any dtype) equal the ratings wherever these are observed."""
    return torch.equal(values.double().masked_fill(~observed, 0), ratings.double().masked_fill(~observed, 0))


def _as_floats(ratings: Tensor, observed: Tensor, name: str) -> EncodedRatings | None:
    values = ratings.to(FLOAT_DTYPES[name])
    if not _lossless(values, ratings, observed):
        return None
    return EncodedRatings(values.masked_fill(~observed, float("nan")), name)


def _with_bits(ratings: Tensor, observed: Tensor, name: str) -> EncodedRatings | None:
    values = ratings.to(getattr(torch, name.removesuffix("-bits")))
    if values.dtype is not ratings.dtype and not _lossless(values, ratings, observed):
        return None
    m, n = ratings.shape
    columns = torch.zeros(m, packed_words(n) * 32, dtype=torch.uint8, device=ratings.device)
    columns[:, :n] = observed
    weights = 1 << torch.arange(8, dtype=torch.uint8, device=ratings.device)
    packed = (columns.reshape(m, -1, 8) * weights).sum(2, dtype=torch.uint8)
    return EncodedRatings(values, name, bits=packed.view(torch.int32))


def _as_codes(ratings: Tensor, observed: Tensor, name: str) -> EncodedRatings | None:
    distinct = _distinct_values(ratings, observed)
    if distinct is None:
        return None
    scale, offset = _even_spacing(distinct)
    codes = ((ratings.double() - offset) / scale).round().clamp(0, MISSING_CODE - 1)
    if not _lossless(codes * scale + offset, ratings, observed):
        return None
    codes = codes.nan_to_num_(0).to(torch.uint8).masked_fill_(~observed, MISSING_CODE)
    return EncodedRatings(codes, name, torch.tensor([scale, offset], dtype=torch.float64, device=ratings.device))


def _distinct_values(ratings: Tensor, observed: Tensor) -> list[float] | None:
    """Return the distinct observed values, ascending; None if there are more than codes, or one is not finite."""
    distinct = ratings.new_empty(0, dtype=torch.float64)
    rows = max(1, CHUNK_ELEMENTS // max(1, ratings.shape[1]))
    for start in range(0, len(ratings), rows):
        chunk = slice(start, start + rows)
        distinct = torch.cat([distinct, ratings[chunk][observed[chunk]].double()]).unique()
        if len(distinct) > MISSING_CODE or not distinct.isfinite().all():
            return None
    return distinct.tolist()


def _even_spacing(values: list[float]) -> tuple[float, float]:
    """Return step and start of the coarsest evenly spaced scale that holds all values, in exact fractions."""
    if len(values) < 2:
        return 1.0, values[0] if values else 0.0
    gaps = [Fraction(value) - Fraction(values[0]) for value in values[1:]]
    denominator = math.lcm(*(gap.denominator for gap in gaps))
    return float(Fraction(math.gcd(*(int(gap * denominator) for gap in gaps)), denominator)), values[0]


def observations_of(ratings: Tensor | EncodedRatings, mask: Tensor | None) -> Observations:
    """Return `ratings` and `mask` as a caller passes them in one bundle.

    Raises:
        ValueError: encoded ratings come with a second mask.
    """
    if not isinstance(ratings, EncodedRatings):
        return Observations(ratings, mask)
    if mask is not None:
        raise ValueError("mask: expected None, since encoded ratings carry their mask; got a second one")
    return ratings.observations


def decode(observations: Observations, users: slice, items: slice, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the ratings of a tile, and where they are missing.

    Args:
        items: starts at a multiple of 32.
        dtype: of decoded codes; ratings that are not codes keep their own.

    Returns:
        Two tensors of shape (users, items).
    """
    whole, mask, levels, packed, _ = observations
    ratings = whole.detach()[users, items]
    if levels is not None:
        scale, offset = levels.to(dtype)
        return ratings * scale + offset, ratings == MISSING_CODE
    if mask is None:
        return ratings, ratings.isnan()
    if not packed:
        return ratings, mask[users, items] == 0
    words = mask[users, items.start // 32 : -(-items.stop // 32)]
    bits = words[:, :, None] >> torch.arange(32, dtype=torch.int32, device=words.device) & 1
    return ratings, bits.flatten(1)[:, : ratings.shape[1]] == 0


def tile_of_weights(observations: Observations, users: slice, items: slice, dtype: torch.dtype) -> Tensor | None:
    """Return the weights of a tile, in `dtype`; None if every observed rating weighs 1."""
    if observations.mask is None or not observations.weighted:
        return None
    return observations.mask.detach()[users, items].to(dtype)


def _row_chunks(observations: Observations) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield all ratings and where they are missing, some rows at a time."""
    m, n = observations.ratings.shape
    rows = max(1, CHUNK_ELEMENTS // max(1, n))
    for start in range(0, m, rows):
        yield decode(observations, slice(start, start + rows), slice(0, n), torch.float64)


def check_exact(observations: Observations, dtype: torch.dtype) -> None:
    """Raise ValueError where an observed int32 or int64 rating is not exact in `dtype`, float32 or float64.

    Other dtypes pass unread. Reading the ratings waits for a GPU.
    """
    ratings = observations.ratings
    if ratings.dtype not in WIDE_INTEGERS:
        return
    largest = LARGEST_EXACT[dtype]
    if torch.iinfo(ratings.dtype).max <= largest or not ratings.numel():
        return
    low, high = torch.aminmax(ratings)
    if -largest <= int(low) and int(high) <= largest:
        return
    for values, missing in _row_chunks(observations):
        rounded = values.to(dtype)
        exact = (rounded < 2.0**63) & (rounded.to(torch.int64) == values)  # 2**63 itself would wrap around
        inexact = values[~exact & ~missing]
        if len(inexact):
            name = str(dtype).removeprefix("torch.")
            remedy = "float64 parameters, or " if dtype is torch.float32 else ""
            raise ValueError(
                f"ratings: expected integers that {name} holds exactly, got {int(inexact[0])}; "
                f"pass {remedy}ratings.double() to accept rounding"
            )
