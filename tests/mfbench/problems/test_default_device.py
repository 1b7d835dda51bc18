"""A default device that a conftest or a provider sets does not reach the harness."""

from __future__ import annotations

import pytest
import torch

from mfbench.correctness.gate import standard
from mfbench.problems.cases import Case
from mfbench.problems.inputs import draw, redraw_parameters
from mfbench.providers.outputs import tensors


@pytest.fixture
def default_device():
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


CASE = Case(
    suite="test", m=9, n=11, rank=3, density=0.5, ratings_dtype="float32", mask="uint8", data="synthetic", seed=0
)


@pytest.mark.usefixtures("default_device")
def test_inputs_and_bounds_are_made_on_the_cpu():
    inputs = draw(CASE)
    bounds = standard(inputs).bounds
    again = redraw_parameters(CASE, 1)
    outputs = tensors((1.0, [value.numpy() for value in inputs[:5]]))
    torch.set_default_device(None)
    assert {value.device.type for value in (*inputs[:7], *again.values(), *outputs)} == {"cpu"}
    assert bounds == standard(draw(CASE)).bounds
