"""Ratings that carry their mask: fewer bytes to read, nothing lost."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor

from kernels.problem import OCCUPIED_BLOCK, Problem, check_ratings, packed_words

FLOAT_DTYPES = {
    "bfloat16-nan": torch.bfloat16, "float16-nan": torch.float16,
    "float32-nan": torch.float32, "float64-nan": torch.float64,
}  # fmt: skip
MISSING_CODE = 255
TILE, WORTH_SKIPPING = 64, 0.9  # users and items of a tile; fraction of tiles with an observed entry
CHUNK_ELEMENTS = 1 << 22  # ratings looked at together


class EncodedRatings(NamedTuple):
    """Ratings with their mask inside, accepted by the step as `ratings` with `mask=None`."""

    values: Tensor  # (m, n): floats, NaN where unobserved; or uint8 codes, 255 where unobserved; or as they came
    encoding: (
        str  # "bfloat16-nan", "float16-nan", "float32-nan", "float64-nan", "uint8-code", "uint8-bits", "int8-bits"
    )
    grid: Tensor | None = None  # (2,) float64, scale and offset of codes: rating = code * scale + offset
    bits: Tensor | None = None  # (m, packed_words(n)) int32, the mask: bit c % 32 of word c // 32 is column c
    occupied: Tensor | None = None  # bool: which blocks of 16 users x 16 items hold an observed entry; None: any may


def encode_ratings(ratings: Tensor, mask: Tensor | None = None, encoding: str | None = None) -> EncodedRatings:
    """Ratings and mask together, in the fewest bytes that lose nothing.

    Bytes a rating: 1 as a code (ratings on an even grid of at most 255 levels), 1.125 as an integer beside a packed
    mask, 2, 4 or 8 as a float that is NaN where unobserved.

    Args:
        ratings: (m, n), any real dtype that the step takes.
        mask: (m, n), non-zero where observed; None: NaN marks the unobserved places.
        encoding: a name of `EncodedRatings.encoding`; None: the smallest that fits.

    Raises:
        TypeError: an argument is not a tensor, or the ratings' dtype is not one that the step takes.
        ValueError: the shapes differ, an observed rating is NaN, or the encoding asked for would lose something.
    """
    check_ratings(ratings, mask)
    ratings = ratings.detach()
    if mask is None:
        observed = ~torch.isnan(ratings)
    else:
        if mask.shape != ratings.shape:
            raise ValueError(f"mask: expected shape {tuple(ratings.shape)} as ratings, got {tuple(mask.shape)}")
        observed = mask != 0
        if (torch.isnan(ratings) & observed).any():
            raise ValueError("ratings: expected no NaN at an observed place, since NaN encodes 'missing'; got one")

    encoders: dict[str, Callable[[Tensor, Tensor, str], EncodedRatings | None]] = {"uint8-code": _as_codes}
    if not ratings.is_floating_point():
        encoders[f"{str(ratings.dtype).removeprefix('torch.')}-bits"] = _with_bits
    encoders |= dict.fromkeys(FLOAT_DTYPES, _as_floats)
    if encoding is not None and encoding not in encoders:
        raise ValueError(f"encoding: expected one of {', '.join(encoders)} for {ratings.dtype}, got {encoding!r}")
    for name in encoders if encoding is None else [encoding]:
        encoded = encoders[name](ratings, observed, name)
        if encoded is not None:
            return encoded._replace(occupied=_occupied(observed))
    raise ValueError(f"encoding: expected one that loses nothing of these ratings, got {encoding!r}")


def _occupied(observed: Tensor) -> Tensor | None:
    """The blocks that hold an observed entry, where so many tiles are empty that skipping them pays."""
    rows, columns = observed.shape
    if 0 in (rows, columns):
        return None
    pixels = observed.to(torch.float32)[None]
    blocks = torch.nn.functional.max_pool2d(pixels, OCCUPIED_BLOCK, ceil_mode=True)
    tiles = torch.nn.functional.max_pool2d(blocks, TILE // OCCUPIED_BLOCK, ceil_mode=True)
    return blocks[0] > 0 if tiles.mean() < WORTH_SKIPPING else None


def _as_floats(ratings: Tensor, observed: Tensor, name: str) -> EncodedRatings | None:
    values = ratings.to(FLOAT_DTYPES[name])
    if not torch.equal(values.double().masked_fill(~observed, 0), ratings.double().masked_fill(~observed, 0)):
        return None
    return EncodedRatings(values.masked_fill(~observed, float("nan")), name)


def _with_bits(ratings: Tensor, observed: Tensor, name: str) -> EncodedRatings:
    m, n = ratings.shape
    columns = torch.zeros(m, packed_words(n) * 32, dtype=torch.uint8, device=ratings.device)
    columns[:, :n] = observed
    weights = 1 << torch.arange(8, dtype=torch.uint8, device=ratings.device)
    packed = (columns.reshape(m, -1, 8) * weights).sum(2, dtype=torch.uint8)
    return EncodedRatings(ratings, name, bits=packed.view(torch.int32))


def _as_codes(ratings: Tensor, observed: Tensor, name: str) -> EncodedRatings | None:
    levels = _levels(ratings, observed)
    if levels is None:
        return None
    scale, offset = _even_grid(levels)
    codes = ((ratings.double() - offset) / scale).round().clamp(0, MISSING_CODE - 1)
    if not torch.equal((codes * scale + offset).masked_fill(~observed, 0), ratings.double().masked_fill(~observed, 0)):
        return None
    codes = codes.nan_to_num_(0).to(torch.uint8).masked_fill_(~observed, MISSING_CODE)
    return EncodedRatings(codes, name, grid=torch.tensor([scale, offset], dtype=torch.float64, device=ratings.device))


def _levels(ratings: Tensor, observed: Tensor) -> list[float] | None:
    """The values that are observed, ascending; None where they are more than the codes, or not finite."""
    levels = ratings.new_empty(0, dtype=torch.float64)
    rows = max(1, CHUNK_ELEMENTS // max(1, ratings.shape[1]))
    for start in range(0, len(ratings), rows):
        chunk = slice(start, start + rows)
        levels = torch.cat([levels, ratings[chunk][observed[chunk]].double()]).unique()
        if len(levels) > MISSING_CODE or not levels.isfinite().all():
            return None
    return levels.tolist()


def _even_grid(levels: list[float]) -> tuple[float, float]:
    """Step and start of the coarsest even grid that holds all levels. Floats are fractions: nothing is rounded."""
    if len(levels) < 2:
        return 1.0, levels[0] if levels else 0.0
    gaps = [Fraction(level) - Fraction(levels[0]) for level in levels[1:]]
    denominator = math.lcm(*(gap.denominator for gap in gaps))
    return float(Fraction(math.gcd(*(int(gap * denominator) for gap in gaps)), denominator)), levels[0]


def decoded(problem: Problem, users: slice, items: slice) -> tuple[Tensor, Tensor]:
    """Ratings of a tile, and where it has none. (users, items) each; `items` starts at a multiple of 32."""
    ratings = problem.ratings.detach()[users, items]
    if problem.grid is not None:
        scale, offset = problem.grid.to(problem.user_factors.dtype)
        return ratings * scale + offset, ratings == MISSING_CODE
    if problem.mask is None:
        return ratings, ratings.isnan()
    if not problem.packed:
        return ratings, problem.mask[users, items] == 0
    words = problem.mask[users, items.start // 32 : -(-items.stop // 32)]
    bits = words[:, :, None] >> torch.arange(32, dtype=torch.int32, device=words.device) & 1
    return ratings, bits.flatten(1)[:, : ratings.shape[1]] == 0
