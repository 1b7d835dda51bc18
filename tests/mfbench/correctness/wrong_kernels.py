"""Kernels with one fault each, of the kinds that kernels have, and the outputs that it spoils.

All compute in float64, so that nothing but the fault can be what the gate objects to, except where the fault is a
precision. `TILE` is the edge of the tiles in which the others' faults lie.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mfbench.problems.inputs import Inputs

TILE = 64
LOSS, P, Q, BU, BI, MU = "loss", "user_factors", "item_factors", "user_bias", "item_bias", "global_bias"
OUTPUTS = (LOSS, P, Q, BU, BI, MU)
GRADIENTS = OUTPUTS[1:]

Values = dict[str, np.ndarray]  # inputs or outputs by name


class Fault(NamedTuple):
    """A wrong kernel: what it gives for (inputs, regulariser), and which outputs are wrong."""

    compute: Callable[[Values, float], Values]
    spoils: frozenset[str]
    matters: str = "errors"  # against what the regulariser must weigh for it: "errors" (little), "factors" or "biases"

    others: bool = False  # rounding may or may not spoil other outputs too: their errors cancel by chance


FAULTS: dict[str, Fault] = {}


def arrays(inputs: Inputs) -> Values:
    """The tensors as float64, the mask as booleans."""
    values = {name: np.asarray(getattr(inputs, name).double()) for name in Inputs._fields[:6]}
    return values | {"mask": np.asarray(inputs.mask) != 0}


def errors(v: Values) -> np.ndarray:
    """E, (m, n)."""
    predicted = v[P] @ v[Q].T + v[BU] + v[BI].T + v[MU]
    return np.where(v["mask"], predicted - v["ratings"], 0)


def outputs(v: Values, reg: float, e: np.ndarray) -> Values:
    """Loss and gradients that belong to E."""
    return {
        LOSS: (e**2).sum() + reg * sum((v[name] ** 2).sum() for name in (P, Q, BU, BI)),
        P: 2 * (e @ v[Q] + reg * v[P]),
        Q: 2 * (e.T @ v[P] + reg * v[Q]),
        BU: 2 * (e.sum(1, keepdims=True) + reg * v[BU]),
        BI: 2 * (e.sum(0)[:, None] + reg * v[BI]),
        MU: 2 * e.sum()[None],
    }


def right(v: Values, reg: float) -> Values:
    return outputs(v, reg, errors(v))


def fault(name: str, *spoils: str, matters: str = "errors") -> Callable[[Callable[[Values, float], Values]], None]:
    def note(compute: Callable[[Values, float], Values]) -> None:
        FAULTS[name] = Fault(compute, frozenset(spoils or OUTPUTS), matters)

    return note


def in_errors(name: str, change: Callable[[np.ndarray, Values], np.ndarray]) -> None:
    """A fault that makes another E, and so spoils everything."""
    fault(name)(lambda v, reg: outputs(v, reg, change(errors(v), v)))


def in_inputs(name: str, change: Callable[[Values], Values]) -> None:
    """E of other inputs; the gradient products and the regulariser have the right ones."""
    fault(name)(lambda v, reg: outputs(v, reg, errors(v | change(v))))


def in_rounding(name: str, *spoils: str, change: Callable[[Values], Values]) -> None:
    """Inputs rounded for the whole of the step."""
    FAULTS[name] = Fault(lambda v, reg: right(v | change(v), reg), frozenset(spoils), others=True)


def in_output(
    name: str, output: str, change: Callable[[np.ndarray, Values, float], np.ndarray], matters: str = "errors"
) -> None:
    """A fault in one output alone."""

    def compute(v: Values, weight: float) -> Values:
        values = right(v, weight)
        return values | {output: change(values[output], v, weight)}

    fault(name, output, matters=matters)(compute)


def zeroed(e: np.ndarray, *place) -> np.ndarray:
    e = e.copy()
    e[place] = 0
    return e


def scaled(e: np.ndarray, factor: float, *place) -> np.ndarray:
    e = e.copy()
    e[place] *= factor
    return e


def unmasked(v: Values, *place) -> Values:
    mask = v["mask"].copy()
    mask[place] = True
    return {"mask": mask}


def bits_cut(values: np.ndarray, kept: int) -> np.ndarray:
    """The float32 nearest to each, with so many of the 23 bits of its mantissa."""
    pattern = values.astype(np.float32).view(np.uint32) & np.uint32(0xFFFFFFFF << (23 - kept) & 0xFFFFFFFF)
    return pattern.view(np.float32).astype(np.float64)


def summed_in_few_bits(terms: np.ndarray, kept: int) -> np.ndarray:
    """Sums over the first axis, the running sum rounded after each term."""
    total = np.zeros(terms.shape[1:])
    for term in terms:
        total = bits_cut(total + term, kept)
    return total


everything = slice(None)

# The mask
in_inputs("mask ignored", lambda v: unmasked(v, everything))
in_inputs("mask ignored in the last row", lambda v: unmasked(v, -1))
in_inputs("mask ignored in the last column", lambda v: unmasked(v, everything, -1))
in_inputs("mask ignored beyond the first tile", lambda v: unmasked(v, slice(TILE, None), slice(TILE, None)))
in_inputs("mask inverted", lambda v: {"mask": ~v["mask"]})
in_inputs("mask of the row above", lambda v: {"mask": np.roll(v["mask"], 1, 0)})
in_inputs("mask of the column before", lambda v: {"mask": np.roll(v["mask"], 1, 1)})
in_inputs("mask read with the wrong stride", lambda v: {"mask": v["mask"].ravel("F").reshape(v["mask"].shape)})

# Edges of tiles, single rows, columns and entries
in_errors("rows beyond the last whole tile lost", lambda e, v: zeroed(e, slice(TILE, None)))
in_errors("columns beyond the last whole tile lost", lambda e, v: zeroed(e, everything, slice(2 * TILE, None)))
in_errors("first column of each tile lost", lambda e, v: zeroed(e, everything, slice(0, None, TILE)))
in_errors("a tile counted twice", lambda e, v: scaled(e, 2, slice(TILE), slice(TILE)))
in_errors("one row lost", lambda e, v: zeroed(e, 17))
in_errors("one column lost", lambda e, v: zeroed(e, everything, 17))
in_errors("one row doubled", lambda e, v: scaled(e, 2, 17))
in_errors("one column halved", lambda e, v: scaled(e, 0.5, everything, 17))
in_errors("diagonal lost", lambda e, v: e * (1 - np.eye(*e.shape)))
fault("rows out of order within a tile", P, Q, BU)(
    lambda v, reg: outputs(v, reg, errors(v)[np.r_[1, 0, 2 : len(v[P])]])
)

# Missing and doubled terms of the prediction
in_inputs("no user bias", lambda v: {BU: 0 * v[BU]})
in_inputs("no item bias", lambda v: {BI: 0 * v[BI]})
in_inputs("no global bias", lambda v: {MU: 0 * v[MU]})
in_inputs("global bias counted twice", lambda v: {MU: 2 * v[MU]})
in_inputs("item bias of the neighbour", lambda v: {BI: np.roll(v[BI], 1, 0)})
in_inputs("last factor left out", lambda v: {P: zeroed(v[P], everything, -1)})
in_inputs("first factor counted twice", lambda v: {P: scaled(v[P], 2, everything, 0)})
in_inputs("ratings of the wrong sign", lambda v: {"ratings": -v["ratings"]})
in_inputs("ratings cut to whole numbers of the largest", lambda v: {"ratings": _coarse(v["ratings"])})

# Terms of single outputs
for name in GRADIENTS:
    in_output(f"{name} without the factor 2", name, lambda value, v, reg: value / 2)
    in_output(f"{name} of the wrong sign", name, lambda value, v, reg: -value)
    in_output(f"{name} zero", name, lambda value, v, reg: 0 * value)
for name, weight in ((P, "factors"), (Q, "factors"), (BU, "biases"), (BI, "biases")):
    in_output(
        f"{name} without the regulariser", name,
        lambda value, v, reg, name=name: value - 2 * reg * v[name], weight,
    )  # fmt: skip
    in_output(f"{name} with half the regulariser", name, lambda value, v, reg, name=name: value - reg * v[name], weight)
in_output("global bias regularised", MU, lambda value, v, reg: value + 2 * reg * v[MU], "biases")
in_output("loss without the regulariser", LOSS, lambda value, v, reg: (errors(v) ** 2).sum(), "biases")
in_output("loss with half the regulariser", LOSS, lambda value, v, reg: (value + (errors(v) ** 2).sum()) / 2, "biases")
in_output(
    "loss regularises users only",
    LOSS,
    lambda value, v, reg: value - reg * ((v[Q] ** 2).sum() + (v[BI] ** 2).sum()),
    "biases",
)
in_output("loss is a mean", LOSS, lambda value, v, reg: value / v["mask"].sum())
in_output("loss of absolute errors", LOSS, lambda value, v, reg: value - (errors(v) ** 2).sum() + abs(errors(v)).sum())
in_output("loss halved", LOSS, lambda value, v, reg: value / 2)
in_output("global bias from the first tile alone", MU, lambda value, v, reg: 2 * errors(v)[:, :TILE].sum()[None])
in_output("addition to one tile lost in a race", Q, lambda value, v, reg: value - 2 * _tile_of_dq(v))
in_output("user gradients of the next row", P, lambda value, v, reg: np.roll(value, 1, 0))
in_output("item gradients in reverse", Q, lambda value, v, reg: value[::-1])
in_output("factor columns swapped", P, lambda value, v, reg: value[:, ::-1])
in_output("transposed within its memory", Q, lambda value, v, reg: value.ravel("F").reshape(value.shape))
in_output("one entry of the neighbour", BU, lambda value, v, reg: value[np.r_[1, 1 : len(value)]])
in_output("the last row unwritten", BI, lambda value, v, reg: np.append(value[:-1], [[np.nan]], 0))
in_output("the last row left at zero", BI, lambda value, v, reg: zeroed(value, -1))
in_output("added to what was there before", Q, lambda value, v, reg: 2 * value)
in_output("an infinite entry", P, lambda value, v, reg: np.where(value == value.max(), np.inf, value))
in_output("off by a ten thousandth of its terms", MU, lambda value, v, reg: value + 1e-4 * abs(errors(v)).sum())

# Precisions that nobody asked for: kept bits of the mantissa are 7 in bfloat16, 10 in float16 and in tf32
in_rounding("factors in bfloat16", P, Q, change=lambda v: {P: bits_cut(v[P], 7), Q: bits_cut(v[Q], 7)})
in_rounding("factors in tf32", P, Q, change=lambda v: {P: bits_cut(v[P], 10), Q: bits_cut(v[Q], 10)})
in_rounding("biases in bfloat16", BU, BI, change=lambda v: {BU: bits_cut(v[BU], 7), BI: bits_cut(v[BI], 7)})
in_errors("errors in float16", lambda e, v: bits_cut(e, 10))
in_output(
    "loss summed in float16", LOSS,
    lambda value, v, reg: value - (errors(v) ** 2).sum() + summed_in_few_bits(errors(v).ravel() ** 2, 10),
)  # fmt: skip
in_output(
    "user bias summed in bfloat16", BU,
    lambda value, v, reg: 2 * (summed_in_few_bits(errors(v).T, 7)[:, None] + reg * v[BU]),
)  # fmt: skip
in_output(
    "item gradients summed in float16", Q,
    lambda value, v, reg: 2 * (summed_in_few_bits(errors(v)[:, :, None] * v[P][:, None], 10) + reg * v[Q]),
)  # fmt: skip


@fault("regulariser as a whole number of 32 bits", P, Q, LOSS, matters="factors")
def _(v: Values, reg: float) -> Values:
    unit = reg / 3e9
    wrapped = unit * float(np.array([reg / unit]).astype(np.int64).astype(np.int32)[0])
    values, with_wrapped = right(v, reg), right(v, wrapped)
    return values | {name: with_wrapped[name] for name in (P, Q, LOSS)}


@fault("user and item gradients exchanged", P, Q)
def _(v: Values, reg: float) -> Values:
    values = right(v, reg)
    shorter = min(len(values[P]), len(values[Q]))
    p, q = values[P].copy(), values[Q].copy()
    p[:shorter], q[:shorter] = values[Q][:shorter], values[P][:shorter]
    return values | {P: p, Q: q}


def _coarse(ratings: np.ndarray) -> np.ndarray:
    largest = abs(ratings).max()
    return np.trunc(ratings / largest * 10) / 10 * largest * 0.999


def _tile_of_dq(v: Values) -> np.ndarray:
    lost = np.zeros_like(v[Q])
    lost[:TILE] = errors(v)[:TILE, :TILE].T @ v[P][:TILE]
    return lost
