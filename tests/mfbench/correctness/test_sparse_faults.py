"""The gate on sparse ratings: honest kernels pass, and each planted fault is caught and named."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from mfbench.correctness import gate
from mfbench.correctness.audit.expected import ExpectedOutputs
from mfbench.problems.cases import Case
from mfbench.problems.inputs import Inputs, draw
from mfbench.problems.matrices import csr, parts, with_values
from mfbench.providers.registry import load
from reference import autograd_loss_and_grads, oracle_loss_and_grads
from tests.mfbench.correctness.test_gate import flat, wrong

CASE = Case(suite="t", m=300, n=200, rank=8, density=0.05, layout="sparse", ratings_dtype="float32", mask="none",
            data="power-law", seed=1)  # fmt: skip


def drawn(**changes: object) -> Inputs:
    """Return sparse inputs, a fifth of whose ratings are 0."""
    inputs = draw(CASE.model_copy(update=changes))
    values = inputs.ratings.values().clone()
    values[::5] = 0
    return inputs._replace(ratings=with_values(inputs.ratings, values))


def without(ratings: torch.Tensor, dropped: torch.Tensor) -> torch.Tensor:
    """Return the ratings but those at the positions `dropped`."""
    kept = torch.ones(ratings.values().numel(), dtype=torch.bool)
    kept[dropped] = False
    starts, columns, values = parts(ratings)
    before = torch.tensor([0, *kept.cumsum(0).tolist()], dtype=starts.dtype)
    return csr(before[starts.long()], columns[kept], values[kept], ratings.shape)


def last_of_a_row(inputs: Inputs) -> Inputs:
    starts = inputs.ratings.crow_indices()
    busiest = int(starts.diff().argmax())
    return inputs._replace(ratings=without(inputs.ratings, starts[busiest + 1].long() - 1))


def last_of_every_row(inputs: Inputs) -> Inputs:
    starts = inputs.ratings.crow_indices()
    return inputs._replace(ratings=without(inputs.ratings, starts[1:][starts.diff() > 0].long() - 1))


def a_row_twice(inputs: Inputs) -> Inputs:
    starts, columns, values = parts(inputs.ratings)
    row = 17
    begin, end = int(starts[row]), int(starts[row + 1])
    twice = [torch.cat([part[:end], part[begin:]]) for part in (columns, values)]
    starts = starts.clone()
    starts[row + 1 :] += end - begin
    return inputs._replace(ratings=csr(starts, *twice, inputs.ratings.shape))


def without_zeros(inputs: Inputs) -> Inputs:
    return inputs._replace(ratings=without(inputs.ratings, (inputs.ratings.values() == 0).nonzero().squeeze(1)))


def one_zero(inputs: Inputs) -> Inputs:
    return inputs._replace(ratings=without(inputs.ratings, (inputs.ratings.values() == 0).nonzero()[3]))


def shifted_columns(inputs: Inputs) -> Inputs:
    starts, columns, values = parts(inputs.ratings)
    return inputs._replace(ratings=csr(starts, (columns + 1) % inputs.ratings.shape[1], values, inputs.ratings.shape))


FAULTS: dict[str, Callable[[Inputs], Inputs]] = {
    fault.__name__: fault
    for fault in (last_of_a_row, last_of_every_row, a_row_twice, without_zeros, one_zero, shifted_columns)
}
EVERYWHERE = ["loss", "user_factors", "item_factors", "user_bias", "item_bias", "global_bias"]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("step", [oracle_loss_and_grads, autograd_loss_and_grads])
def test_every_output_of_a_planted_fault_is_caught(fault: str, step) -> None:
    inputs = drawn()
    standard = gate.standard(inputs)
    assert wrong(standard, flat(step(*FAULTS[fault](inputs)))) == EVERYWHERE


@pytest.mark.parametrize(
    ("fault", "hint"),
    [
        (last_of_every_row, "leaves out the last rating of every user"),
        (without_zeros, "leaves out the ratings that are 0"),
        (last_of_a_row, "only in rows"),
    ],
)
def test_common_faults_are_named(fault: Callable[[Inputs], Inputs], hint: str) -> None:
    inputs = drawn()
    checks = gate.standard(inputs).judge(flat(oracle_loss_and_grads(*fault(inputs))))
    assert any(hint in check.hint for check in checks.values())


@pytest.mark.parametrize("provider", ["autograd", "gather", "closed-form"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "uint8"])
def test_honest_providers_pass(provider: str, dtype: str) -> None:
    inputs = drawn(ratings_dtype=dtype)
    loss, grads = load(provider).prepare(inputs)()
    assert wrong(gate.standard(inputs), flat((loss.detach(), grads))) == []


def test_the_standard_is_that_of_the_matrix() -> None:
    inputs = drawn()
    sparse, dense = gate.standard(inputs), gate.standard(inputs.dense())
    for field in ("exact", "scales"):
        for value, expected in zip(getattr(sparse, field), getattr(dense, field), strict=True):
            np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(sparse.bounds, dense.bounds, rtol=3)  # eager's own errors, in another order
    low, high = ExpectedOutputs.of(sparse), ExpectedOutputs.of(dense)
    assert low.high == pytest.approx(high.high)
    np.testing.assert_allclose(low.at_high, high.at_high, rtol=1e-9)


@pytest.mark.parametrize("elements", [8, 1000])
def test_blocks_of_the_gate_add_up(monkeypatch: pytest.MonkeyPatch, elements: int) -> None:
    inputs = drawn()
    whole = gate.standard(inputs)
    monkeypatch.setattr(gate, "BLOCK_ELEMENTS", elements)
    monkeypatch.setattr(gate, "EAGER_ELEMENTS", elements)
    assert len(list(inputs.user_blocks(gate.eager_elements(inputs)))) > 10
    parts = gate.standard(inputs)
    for value, expected in zip(parts.scales, whole.scales, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-12)
    np.testing.assert_allclose(parts.bounds, whole.bounds, rtol=3)
