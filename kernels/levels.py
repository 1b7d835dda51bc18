"""Evenly spaced levels of ratings, such as half stars, and the one-byte codes that count them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction

import torch
from torch import Tensor

from kernels.decoding import MISSING_CODE


def find_levels(chunks: Iterable[Tensor]) -> tuple[float, float] | None:
    """Return step and start of the coarsest evenly spaced scale of all values; None if one byte cannot count them."""
    values = _distinct_values(chunks)
    return None if values is None else _even_spacing(values)


def to_codes(ratings: Tensor, levels: tuple[float, float]) -> Tensor:
    """Return the nearest codes, as float64."""
    scale, offset = levels
    return ((ratings.double() - offset) / scale).round().clamp(0, MISSING_CODE - 1)


def _distinct_values(chunks: Iterable[Tensor]) -> list[float] | None:
    """Return the distinct values, ascending; None if there are more than codes, or one is not finite."""
    distinct = torch.empty(0, dtype=torch.float64, device="cpu")
    for chunk in chunks:
        distinct = torch.cat([distinct, chunk.double().unique().to(distinct.device)]).unique()
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
