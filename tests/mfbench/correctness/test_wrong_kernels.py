"""The gate against wrong kernels and honest ones, at every scale of the data."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from kernels import backends, mf_loss_and_grads
from mfbench.correctness import gate
from mfbench.problems.inputs import Inputs
from mfbench.providers.registry import load
from tests.mfbench.correctness.test_gate import flat, inputs_at, wrong
from tests.mfbench.correctness.wrong_kernels import FAULTS, OUTPUTS, arrays, bits_cut, errors, outputs, right

SCALES = [1e-8, 1e-4, 1.0, 1e4, 1e8]
REG = {"errors": lambda scale: 0.1 * min(scale, 1), "factors": lambda scale: 10 * scale, "biases": lambda scale: 10.0}
PRECISIONS = {"tf32": 10, "bf16x3": 15}  # bits of the mantissa that products keep


@functools.cache
def problem(scale: float, matters: str = "errors") -> tuple[Inputs, gate.Standard]:
    inputs = inputs_at(scale)._replace(reg=REG[matters](scale))
    return inputs, gate.standard(inputs)


@pytest.mark.parametrize("name", FAULTS)
def test_wrong_kernels_are_rejected_by_the_outputs_they_spoil(name: str) -> None:
    fault = FAULTS[name]
    for scale in SCALES:
        inputs, standard = problem(scale, fault.matters)
        values = fault.compute(arrays(inputs), inputs.reg)
        found = set(wrong(standard, [values[output] for output in OUTPUTS]))
        assert found >= fault.spoils if fault.others else found == fault.spoils, scale


def test_there_are_many_and_each_is_a_fault_of_its_own() -> None:
    inputs, _ = problem(1.0, "biases")
    v = arrays(inputs)
    found = {
        tuple(
            float(np.nan_to_num(value, nan=7, posinf=9).ravel() @ np.arange(1, value.size + 1))
            for value in values.values()
        )
        for values in (fault.compute(v, inputs.reg) for fault in FAULTS.values())
    }
    assert len(FAULTS) == len(found) >= 40


@pytest.mark.parametrize("scale", SCALES)
def test_what_leaks_from_unobserved_places_is_seen(scale: float) -> None:
    """A product with the mask instead of a choice by it: 0 · NaN is NaN."""
    inputs, _ = problem(scale)
    ratings = inputs.ratings.masked_fill(inputs.mask == 0, float("nan"))
    inputs = inputs._replace(ratings=ratings)
    v = arrays(inputs)
    leaking = (v["user_factors"] @ v["item_factors"].T + v["user_bias"] + v["item_bias"].T + v["global_bias"]) * v[
        "mask"
    ]
    leaking = leaking - v["ratings"] * v["mask"]
    standard = gate.standard(inputs)
    assert wrong(standard, list(outputs(v, inputs.reg, leaking).values())) == list(OUTPUTS)
    assert wrong(standard, list(right(v, inputs.reg).values())) == []
    assert wrong(standard, flat(mf_loss_and_grads(*inputs, backend="torch"))) == []


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_honest_kernels_of_every_kind_are_accepted(scale: float, dtype: str) -> None:
    inputs, _ = problem(scale)
    cast = {name: getattr(inputs, name).to(getattr(torch, dtype)) for name in Inputs._fields[:5]}
    inputs = inputs._replace(**cast)
    standard = gate.standard(inputs)
    for backend in ("torch", *(["native"] if backends()["native"].available else [])):
        for deterministic in (False, True):
            result = mf_loss_and_grads(*inputs, backend=backend, deterministic=deterministic)
            assert wrong(standard, flat(result)) == [], backend
    for provider in ("autograd", "closed-form"):
        loss, grads = load(provider).prepare(inputs)()
        assert wrong(standard, flat((loss.detach(), grads))) == [], provider


@pytest.mark.parametrize("scale", SCALES)
def test_honest_sums_in_any_order_are_accepted(scale: float) -> None:
    """Float32 sums term by term, forwards and backwards, the least accurate order that is honest."""
    inputs, standard = problem(scale)
    for turn in (1, -1):
        assert wrong(standard, _term_by_term(inputs, turn)) == [], turn


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_honest_kernels_in_a_coarser_precision_are_accepted_where_it_was_asked_for(
    scale: float, precision: str
) -> None:
    inputs, standard = problem(scale)
    v = arrays(inputs)
    kept = PRECISIONS[precision]
    cut = {name: bits_cut(v[name], kept) for name in ("user_factors", "item_factors")}
    e = errors(v | cut)
    values = outputs(v | cut, 0.0, bits_cut(e, kept)) | {"loss": np.float64((e**2).sum())}
    exact = outputs(v, inputs.reg, 0 * e)
    values = [values[name] + exact[name] for name in OUTPUTS]
    assert wrong(standard.coarsened(gate.PRECISION_EPS[precision]), values) == []
    assert wrong(standard, values) != []


def _term_by_term(inputs: Inputs, turn: int) -> list[np.ndarray]:
    P, Q, bu, bi, mu = (np.asarray(value) for value in inputs[:5])
    ratings, mask, reg = np.asarray(inputs.ratings), np.asarray(inputs.mask) != 0, np.float32(inputs.reg)
    e = np.zeros_like(ratings) + bu + bi.T + mu
    for column in range(P.shape[1])[::turn]:
        e = e + P[:, column, None] * Q[None, :, column]
    e = np.where(mask, e - ratings, np.float32(0))
    dP, dQ = reg * P, reg * Q
    dbu, dbi = reg * bu, reg * bi
    for j in range(e.shape[1])[::turn]:
        dP, dbu = dP + e[:, j, None] * Q[j], dbu + e[:, j, None]
    for i in range(e.shape[0])[::turn]:
        dQ, dbi = dQ + e[i, :, None] * P[i], dbi + e[i, :, None]
    loss = (e.astype(np.float64) ** 2).sum() + inputs.reg * sum(
        (v.astype(np.float64) ** 2).sum() for v in (P, Q, bu, bi)
    )
    return [loss, *(2 * grad for grad in (dP, dQ, dbu, dbi)), 2 * dbu_sum(e)]


def dbu_sum(e: np.ndarray) -> np.ndarray:
    return np.add.accumulate(e.ravel(), dtype=np.float32)[-1:]
