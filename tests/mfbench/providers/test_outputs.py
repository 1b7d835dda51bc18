"""A provider's outputs: every honest form is taken, everything else is refused by name."""

from __future__ import annotations

from collections import namedtuple

import numpy as np
import pytest
import torch

from mfbench.problems.inputs import Inputs, fingerprints
from mfbench.providers.outputs import OUTPUTS, WrongOutputs, changed_inputs, flaws, tensors
from mfbench.results.codes import Code, Finding

SHAPES = ((3, 2), (4, 2), (3, 1), (4, 1), (1,))
Grads = namedtuple("Grads", OUTPUTS[1:])


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
        ((1.0, [*grads()[:4], "zero"]), "expected tensors in "),
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
        Finding(Code.BAD_SHAPE, "user_bias has shape (3,), expected (3, 1)", "user_bias"),
        Finding(Code.BAD_DTYPE, "global_bias is float64, expected float32", "global_bias"),
    ]


def test_inputs_that_a_provider_wrote_to_are_named() -> None:
    inputs = Inputs(*grads(), torch.zeros(3, 4), torch.ones(3, 4), 0.1)
    before = fingerprints(inputs)
    assert changed_inputs(inputs, before) == []
    inputs.mask[2, 3] = 0
    inputs.user_factors[0, 0] = -0.0  # equal to what it was, and other bits
    assert changed_inputs(inputs, before) == [
        Finding(Code.CHANGED_INPUT, f"changed its input {name}") for name in ("user_factors", "mask")
    ]
