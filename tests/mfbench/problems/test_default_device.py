"""A default device that a conftest or a provider sets does not reach the harness."""

from __future__ import annotations

import pytest
import torch

from mfbench.correctness.gate import standard
from mfbench.problems.cases import Case
from mfbench.problems.inputs import draw, redraw_parameters
from mfbench.problems.matrices import parts
from mfbench.providers.outputs import tensors
from mfbench.train.options import TrainOptions
from mfbench.train.task import make_task


@pytest.fixture
def default_device():
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


CASE = Case(
    suite="test", m=9, n=11, rank=3, density=0.5, ratings_dtype="float32", mask="uint8", data="synthetic", seed=0
)


@pytest.mark.usefixtures("default_device")
@pytest.mark.parametrize("data", ["synthetic", "blocks", "power-law", "seed"])
def test_sparse_inputs_are_made_on_the_cpu(data):
    """And the matrix that a provider without sparse ratings is given."""
    sparse = draw(CASE.model_copy(update={"layout": "sparse", "mask": "none", "data": data}))
    dense = sparse.dense()
    empty = draw(CASE.model_copy(update={"layout": "sparse", "mask": "none", "data": data, "m": 0}))
    standard(sparse)
    torch.set_default_device(None)
    assert {part.device.type for part in (*parts(sparse.ratings), dense.ratings, dense.mask)} == {"cpu"}
    assert empty.ratings.device.type == "cpu"


@pytest.mark.usefixtures("default_device")
def test_training_starts_on_the_cpu_in_float32(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text("".join(f"{user},{item},{user % 5 + 1}\n" for user in range(9) for item in range(8)))
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        tasks = [
            make_task(TrainOptions(data=data, device="cpu", rank=2, layout=layout, size=size))
            for data, size in ((str(path), None), ("power-law", (9, 8)))
            for layout in ("dense", "sparse")
        ]
    finally:
        torch.set_default_dtype(before)
    torch.set_default_device(None)
    for task in tasks:
        assert {value.device.type for value in task.inputs[:5]} == {"cpu"}
        assert {value.dtype for value in task.inputs[:6]} == {torch.float32}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_bounds_are_made_though_gradients_are_off(mode, layout):
    """As by a provider's file that calls `torch.set_grad_enabled(False)`."""
    inputs = draw(CASE.model_copy(update={"layout": layout, "mask": "none" if layout == "sparse" else "uint8"}))
    expected = standard(inputs).bounds
    with mode():
        assert standard(inputs).bounds == expected


@pytest.mark.usefixtures("default_device")
def test_inputs_and_bounds_are_made_on_the_cpu():
    inputs = draw(CASE)
    bounds = standard(inputs).bounds
    again = redraw_parameters(CASE, 1)
    outputs = tensors((1.0, [value.numpy() for value in inputs[:5]]))
    torch.set_default_device(None)
    assert {value.device.type for value in (*inputs[:7], *again.values(), *outputs)} == {"cpu"}
    assert bounds == standard(draw(CASE)).bounds
