"""Decoding of ratings in PyTorch: tiles of a matrix, and the checks that read all of it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from kernels.problem import WIDE_INTEGERS, Observations

MISSING_CODE = 255
CHUNK_ELEMENTS = 1 << 22  # ratings examined at a time
LARGEST_EXACT = {torch.float32: 1 << 24, torch.float64: 1 << 53}  # every integer up to this magnitude is exact


def decode(observations: Observations, users: slice, items: slice, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the ratings of a tile, and where they are missing.

    Args:
        items: starts at a multiple of 32.
        dtype: of decoded codes; ratings that are not codes keep their own.

    Returns:
        Two tensors of shape (users, items).
    """
    whole, mask, levels, packed, *_ = observations
    ratings = whole.detach()[users, items]
    if levels is not None:
        return decode_codes(ratings, levels, dtype), ratings == MISSING_CODE
    if mask is None:
        return ratings, ratings.isnan()
    if not packed:
        return ratings, mask[users, items] == 0
    words = mask[users, items.start // 32 : -(-items.stop // 32)]
    bits = words[:, :, None] >> torch.arange(32, dtype=torch.int32, device=words.device) & 1
    return ratings, bits.flatten(1)[:, : ratings.shape[1]] == 0


def decode_codes(codes: Tensor, levels: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the ratings that codes stand for."""
    scale, offset = levels.to(dtype)
    ratings: Tensor = codes * scale + offset
    return ratings


def tile_of_weights(observations: Observations, users: slice, items: slice, dtype: torch.dtype) -> Tensor | None:
    """Return the weights of a tile, in `dtype`; None if every observed rating weighs 1."""
    if observations.mask is None or not observations.weighted:
        return None
    return observations.mask.detach()[users, items].to(dtype)


def row_chunks(observations: Observations) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield all ratings and where they are missing, some rows of a matrix or some entries at a time."""
    if observations.sparse:
        for values in observations.ratings.detach().split(CHUNK_ELEMENTS):
            yield values, torch.zeros_like(values, dtype=torch.bool)
        return
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
    for values, missing in row_chunks(observations):
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
