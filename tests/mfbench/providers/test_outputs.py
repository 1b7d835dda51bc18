"""A provider's outputs: every honest form is taken, everything else is refused by name."""

from __future__ import annotations

from collections import namedtuple

import numpy as np
import pytest
import torch

from mfbench.problems.inputs import Inputs
from mfbench.providers.outputs import NAMES, WrongOutputs, flaws, tensors

SHAPES = ((3, 2), (4, 2), (3, 1), (4, 1), (1,))
Grads = namedtuple("Grads", NAMES[1:])


class Lazy(tuple):
    """Computes its values when they are read."""

    def __iter__(self):
        raise AssertionError("read")


class Subclass(torch.Tensor):
    pass


def grads() -> list[torch.Tensor]:
    return [torch.full(shape, float(place)) for place, shape in enumerate(SHAPES)]


@pytest.mark.parametrize(
    "outputs",
    [
        (torch.tensor(7.0), grads()),
        [7.0, tuple(grads())],
        (np.float64(7), [grad.numpy() for grad in grads()]),
        (torch.tensor([7.0]), Grads(*grads())),
        (torch.nn.Parameter(torch.tensor(7.0)), grads()),
    ],
    ids=["tensors", "list", "arrays", "named tuple", "parameter"],
)
def test_honest_forms_are_taken(outputs) -> None:
    loss, *found = tensors(outputs)
    assert loss.item() == 7
    for value, expected in zip(found, grads(), strict=True):
        assert torch.equal(value, expected)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (None, "got a NoneType"),
        ((1.0, *grads()), "got a tuple of 6 values"),
        ((1.0, torch.zeros(5)), "expected the gradients in a tuple or list, got a Tensor"),
        (Lazy((1.0, grads())), "got a Lazy"),
        ((1.0, Lazy(grads())), "got a Lazy"),
        ((1.0, grads()[:4]), "got a loss and 4"),
        ((1.0, [*grads(), torch.zeros(1)]), "got a loss and 6"),
        ((1.0, [*grads()[:4], "zero"]), "something other than tensors"),
        ((1.0, [*grads()[:4], torch.zeros(1).as_subclass(Subclass)]), "global_bias: expected a plain tensor"),
        ((1.0, [*grads()[:4], torch.zeros(1, dtype=torch.complex64)]), "global_bias: expected a dense real tensor"),
        ((1.0, [*grads()[:4], torch.zeros(1).to_sparse()]), "torch.sparse_coo"),
        ((1.0, [*grads()[:4], torch.zeros(1, device="meta")]), "meta"),
    ],
)
def test_other_forms_are_refused(outputs, message: str) -> None:
    with pytest.raises(WrongOutputs, match=message):
        tensors(outputs)


def test_shapes_and_dtypes_are_those_of_the_parameters() -> None:
    inputs = Inputs(*grads(), torch.zeros(3, 4), None, 0.1)
    values = tensors((1.0, grads()))
    assert flaws(values, inputs) == []
    values[3], values[5] = values[3].flatten(), values[5].double()
    assert flaws(values, inputs) == [
        "user_bias has shape (3,), expected (3, 1)", "global_bias is float64, expected float32"
    ]  # fmt: skip
