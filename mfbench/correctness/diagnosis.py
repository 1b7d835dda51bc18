"""What is wrong with an output, in terms of the formula: from the values that came and the exact ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

SLACK = 2.0  # bounds within which an explanation must reproduce what came: it has rounding errors of its own
LEAST = 1e-3  # relative difference up to which a factor is called by its nice name
NICE = (-1.0, 2.0, 0.5, 4.0, 0.25, -2.0, -0.5)  # factors that a formula gets wrong by
TILES = (128, 64, 32, 16)
LISTED = 3

PENALTY = {"user_factors": "P", "item_factors": "Q", "user_bias": "bu", "item_bias": "bi", "global_bias": "mu"}


class Exact(NamedTuple):
    """What an output should be.

    `penalty` is the regulariser's share of it (for the global bias, which has none, what it would be); `variants` are
    the values of wrong formulas, by what is wrong with them.
    """

    value: np.ndarray
    scale: np.ndarray  # sums of the absolute values of the terms
    bound: float  # of |error| / scale
    penalty: np.ndarray
    variants: Mapping[str, np.ndarray]


def explain(output: str, got: np.ndarray, exact: Exact) -> str:
    """Why `got` is not the output's value, in a few words; empty where nothing simple explains it.

    Args:
        output: "loss", or the parameter whose gradient it is.
        got: float64, as a provider gave it.
        exact: what it should be, of the same shape.
    """
    if got.shape != exact.value.shape:
        return f"has shape {got.shape}, expected {exact.value.shape}"
    if found := _not_finite(got, exact.value):
        return found
    if got.size and not got.any():
        return "is zero everywhere"
    return (
        _regulariser(output, got, exact)
        or _variant(got, exact)
        or _factor(got, exact)
        or _factor_of_data(got, exact)
        or _places(got, exact)
    )


def _reproduces(candidate: np.ndarray, got: np.ndarray, exact: Exact) -> bool:
    """Whether `got` is that candidate up to rounding, and much nearer to it than to the exact value."""
    if not np.isfinite(candidate).all():
        return False
    off = np.abs(got - candidate)
    near = bool((off <= SLACK * exact.bound * exact.scale).all())
    return near and float(off.max(initial=0)) < float(np.abs(got - exact.value).max(initial=0)) / 2


def _not_finite(got: np.ndarray, value: np.ndarray) -> str:
    wrong = ~np.isfinite(got) & np.isfinite(value)
    if not wrong.any():
        return ""
    kind = "NaN" if np.isnan(got[wrong]).any() else "Inf"
    if wrong.all():
        return f"is {kind} everywhere: was it written at all, or did an unobserved rating reach it?"
    return f"is {kind} {_where(wrong)}"


def _regulariser(output: str, got: np.ndarray, exact: Exact) -> str:
    if output == "global_bias":
        regularised = _reproduces(exact.value + exact.penalty, got, exact)
        return "is regularised, which the global bias is not" if regularised else ""
    term = "reg·(|P|² + |Q|² + |bu|² + |bi|²)" if output == "loss" else f"2·reg·{PENALTY[output]}"
    for times, what in ((-1, f"lacks the regulariser {term}"), (1, f"has the regulariser {term} twice"),
                        (-2, f"subtracts the regulariser {term}")):  # fmt: skip
        if _reproduces(exact.value + times * exact.penalty, got, exact):
            return what
    if output != "loss" and _reproduces(exact.value - exact.penalty / 2, got, exact):
        return f"has the regulariser as reg·{PENALTY[output]}, without the factor 2 of its derivative"
    return ""


def _factor(got: np.ndarray, exact: Exact) -> str:
    factor = _fitted(got, exact.value, exact.scale)
    alone = got.size == 1 and not _nearest(factor)  # a single number is always off by some factor
    if alone or abs(factor) < LEAST or not _reproduces(factor * exact.value, got, exact):
        return ""
    if abs(factor + 1) < LEAST:
        return "has the wrong sign everywhere"
    return f"is off by a factor of {_nice(factor)} everywhere"


def _factor_of_data(got: np.ndarray, exact: Exact) -> str:
    if got.size == 1:
        return ""
    data = exact.value - exact.penalty
    factor = _fitted(got - exact.penalty, data, exact.scale)
    if not _reproduces(exact.penalty + factor * data, got, exact):
        return ""
    if abs(factor) < LEAST:
        return "is the regulariser alone, without its sum over the ratings"
    return f"has its sum over the ratings off by a factor of {_nice(factor)}; the regulariser is right"


def _fitted(got: np.ndarray, value: np.ndarray, scale: np.ndarray) -> float:
    weights = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)
    squares = float(((value * weights) ** 2).sum())
    return float((got * value * weights**2).sum()) / squares if squares > 0 else 1.0


def _nice(factor: float) -> str:
    return f"{_nearest(factor) or factor:.4g}"


def _nearest(factor: float) -> float | None:
    return next((nice for nice in NICE if abs(factor / nice - 1) < LEAST), None)


def _variant(got: np.ndarray, exact: Exact) -> str:
    return next((what for what, value in exact.variants.items() if _reproduces(value, got, exact)), "")


def _places(got: np.ndarray, exact: Exact) -> str:
    wrong = np.abs(got - exact.value) > exact.bound * exact.scale
    return f"is wrong {_where(wrong)}" if 0 < wrong.mean() < 0.5 else ""


def _where(wrong: np.ndarray) -> str:
    """The places in words: a tail past a tile edge, whole rows or columns, or the first few."""
    count = f"{int(wrong.sum()):,} of {wrong.size:,} entries"
    for axis, name in enumerate(("rows", "columns")[: wrong.ndim]):
        if wrong.shape[axis] < 2:
            continue
        hit = np.asarray(wrong.any(axis=tuple(other for other in range(wrong.ndim) if other != axis)))
        at = np.flatnonzero(hit)
        first, last, size = int(at[0]), int(at[-1]), len(hit)
        block = np.take(wrong, range(first, last + 1), axis)
        if len(at) == size or block.mean() < 0.5:
            continue
        place = f"only in {name} {first} to {last} of {size} ({count})"
        edge = next((tile for tile in TILES if first % tile == 0 and first and last == size - 1), None)
        if edge:
            return f"{place}: past the edge of a tile of {edge}"
        return place
    places = [str([int(i) for i in place]) for place in np.argwhere(wrong)[:LISTED]]
    return f"at {count}, the first at {', '.join(places)}"
