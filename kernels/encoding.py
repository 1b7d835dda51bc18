"""Ratings that carry their mask: one tensor instead of two."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kernels.problem import check_ratings

FLOAT_DTYPES = (torch.bfloat16, torch.float16, torch.float32, torch.float64)


class EncodedRatings(NamedTuple):
    """Ratings with their mask inside, accepted by the step as `ratings` with `mask=None`."""

    values: Tensor  # (m, n), NaN where unobserved
    encoding: str  # for example "bfloat16-nan"


def encode_ratings(ratings: Tensor, mask: Tensor | None = None) -> EncodedRatings:
    """Ratings and mask as one tensor in the smallest float format that loses nothing.

    Args:
        ratings: (m, n), any real dtype that the step takes.
        mask: (m, n), non-zero where observed; None: NaN marks the unobserved places.

    Raises:
        TypeError: an argument is not a tensor, or the ratings' dtype is not one that the step takes.
        ValueError: the shapes differ, or an observed rating is NaN, which the encoding cannot hold.
    """
    check_ratings(ratings, mask)
    if mask is None:
        observed = ~torch.isnan(ratings)
    else:
        if mask.shape != ratings.shape:
            raise ValueError(f"mask: expected shape {tuple(ratings.shape)} as ratings, got {tuple(mask.shape)}")
        observed = mask != 0
        if (torch.isnan(ratings) & observed).any():
            raise ValueError("ratings: expected no NaN at an observed place, since NaN encodes 'missing'; got one")
    for dtype in FLOAT_DTYPES:
        values = ratings.to(dtype)
        if torch.equal(values.double().masked_fill(~observed, 0), ratings.double().masked_fill(~observed, 0)):
            break
    return EncodedRatings(
        values.masked_fill(~observed, float("nan")), f"{str(values.dtype).removeprefix('torch.')}-nan"
    )
