"""Providers by name compute the step, and names that do not exist are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mfbench.errors import UsageError
from mfbench.problems.cases import Case
from mfbench.problems.inputs import draw
from mfbench.providers import registry
from reference import oracle_loss_and_grads


def case(data: str = "blocks", **changes) -> Case:
    values = {
        "suite": "tests", "m": 300, "n": 200, "rank": 5, "density": 0.3, "ratings_dtype": "float32", "mask": "uint8",
        "data": data, "seed": 3,
    }  # fmt: skip
    return Case.model_validate(values | changes)


@pytest.mark.parametrize("mask", ["uint8", "none"])
@pytest.mark.parametrize("name", ["fused-encoded", "tiled"])
def test_providers_beside_the_fused_one_compute_the_step(name: str, mask: str) -> None:
    inputs = draw(case("synthetic", mask=mask))
    loss, grads = registry.load(name).prepare(inputs)()
    exact_loss, exact_grads = oracle_loss_and_grads(*inputs)
    assert loss.item() == pytest.approx(float(exact_loss), rel=1e-5)
    for grad, exact in zip(grads, exact_grads, strict=True):
        torch.testing.assert_close(grad.double(), torch.as_tensor(exact).reshape(grad.shape), rtol=1e-4, atol=1e-2)


def test_every_builtin_provider_can_be_loaded_and_is_described() -> None:
    for name, description in registry.names().items():
        assert registry.load(name).name == name
        assert description


FILE = """
import helper

def step(*arguments):
    return helper.step(*arguments)

_hidden = number = 3
"""


def test_a_users_file_is_loaded_with_the_files_beside_it(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FILE)
    (tmp_path / "helper.py").write_text("from kernels import mf_loss_and_grads as step\n")
    inputs = draw(case("synthetic"))
    loss, _ = registry.load(f"{tmp_path}/mine.py:step").prepare(inputs)()
    assert float(loss) == pytest.approx(float(oracle_loss_and_grads(*inputs)[0]), rel=1e-5)


@pytest.mark.parametrize(("name", "code"), [
    ("fusd", "no-such-provider"), ("absent.py:step", "no-such-provider"), ("absent.py", "no-such-function"),
])  # fmt: skip
def test_providers_that_do_not_exist(name: str, code: str) -> None:
    for find in (registry.check, registry.load):
        with pytest.raises(UsageError) as raised:
            find(name)
        assert (raised.value.code, raised.value.argument) == (code, "provider")


@pytest.mark.parametrize(("content", "function", "code"), [
    ("def step(*_): ...", "stop", "no-such-function"), ("step = 3", "step", "no-such-function"),
    ("import nosuchmodule", "step", "provider-load-failed"),
])  # fmt: skip
def test_files_without_the_function(tmp_path: Path, content: str, function: str, code: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(content)
    with pytest.raises(UsageError) as raised:
        registry.load(f"{path}:{function}")
    assert raised.value.code == code
