"""Explain a wrong output in terms of the formula, by comparing it with the exact values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

SLACK = 2.0  # an explanation must reproduce the output within this multiple of the bound; it has rounding errors too
FACTOR_TOLERANCE = 1e-3  # relative difference within which a fitted factor is reported as a simple one
SIMPLE_FACTORS = (-1.0, 2.0, 0.5, 4.0, 0.25, -2.0, -0.5)  # by which a formula is typically wrong
TILES = (128, 64, 32, 16)  # tile edges to look for
MAX_LISTED = 3  # entries listed by position

PENALTY = {"user_factors": "P", "item_factors": "Q", "user_bias": "bu", "item_bias": "bi", "global_bias": "mu"}


class Exact(NamedTuple):
    """Exact value of an output, and what is needed to recognise common mistakes."""

    value: np.ndarray
    scale: np.ndarray  # sums of the absolute values of the terms
    bound: float  # of |error| / scale
    penalty: np.ndarray  # the regulariser's contribution; for the global bias, what it would be if it were regularised
    variants: Mapping[str, np.ndarray]  # values of wrong formulas, by description


def explain(output: str, got: np.ndarray, exact: Exact) -> str:
    """Return a short explanation of how `got` differs from the exact value; empty if there is no simple one.

    Args:
        output: "loss", or the name of the parameter whose gradient it is.
        got: the provider's value, float64.
        exact: the exact value, of the same shape.
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
        or _factor_without_penalty(got, exact)
        or _places(got, exact)
    )


def _reproduces(candidate: np.ndarray, got: np.ndarray, exact: Exact) -> bool:
    """Return whether `got` equals the candidate up to rounding and is much closer to it than to the exact value."""
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
        return f"is {kind} everywhere: it was never written, or an unobserved rating reached it"
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
    arbitrary = got.size == 1 and not _nearest(factor)  # some factor explains any single number
    if arbitrary or abs(factor) < FACTOR_TOLERANCE or not _reproduces(factor * exact.value, got, exact):
        return ""
    if abs(factor + 1) < FACTOR_TOLERANCE:
        return "has the wrong sign everywhere"
    return f"is off by a factor of {_described(factor)} everywhere"


def _factor_without_penalty(got: np.ndarray, exact: Exact) -> str:
    if got.size == 1:
        return ""
    data = exact.value - exact.penalty
    factor = _fitted(got - exact.penalty, data, exact.scale)
    if not _reproduces(exact.penalty + factor * data, got, exact):
        return ""
    if abs(factor) < FACTOR_TOLERANCE:
        return "is the regulariser alone, without its sum over the ratings"
    return f"has its sum over the ratings off by a factor of {_described(factor)}; the regulariser is right"


def _fitted(got: np.ndarray, value: np.ndarray, scale: np.ndarray) -> float:
    weights = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)
    squares = float(((value * weights) ** 2).sum())
    return float((got * value * weights**2).sum()) / squares if squares > 0 else 1.0


def _described(factor: float) -> str:
    return f"{_nearest(factor) or factor:.4g}"


def _nearest(factor: float) -> float | None:
    return next((simple for simple in SIMPLE_FACTORS if abs(factor / simple - 1) < FACTOR_TOLERANCE), None)


def _variant(got: np.ndarray, exact: Exact) -> str:
    return next((what for what, value in exact.variants.items() if _reproduces(value, got, exact)), "")


def _places(got: np.ndarray, exact: Exact) -> str:
    wrong = np.abs(got - exact.value) > exact.bound * exact.scale
    return f"is wrong {_where(wrong)}" if 0 < wrong.mean() < 0.5 else ""


def _where(wrong: np.ndarray) -> str:
    """Describe the wrong entries: past a tile edge, a range of rows or columns, or the first few positions."""
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
    places = [str([int(i) for i in place]) for place in np.argwhere(wrong)[:MAX_LISTED]]
    return f"at {count}, the first at {', '.join(places)}"
