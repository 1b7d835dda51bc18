"""Providers by name, by entry point and from a user's file, and what is said of those that do not exist."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch

from mfbench.errors import UsageError
from mfbench.problems.inputs import Inputs
from mfbench.providers import registry
from reference import oracle_loss_and_grads
from tests.problems import draw_inputs

# Reduced precision has bounds of its own in the gate's tests; `compile` takes a C++ compiler and half a minute.
EXACT = [name for name in registry.BUILTIN if name not in ("compile", "fused-tf32", "fused-bf16x3", "fused-tf32x3")]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "helper.py").write_text("from reference import autograd_loss_and_grads as step\n")
    path = tmp_path / "mine.py"
    path.write_text("from helper import step\nvalue = 3\n")
    return path


def assert_exact(step: registry.Step, inputs: Inputs) -> None:
    loss, grads = step()
    exact_loss, exact = oracle_loss_and_grads(*inputs)
    assert float(loss) == pytest.approx(float(exact_loss), rel=1e-5)
    for grad, values, parameter in zip(grads, exact, inputs[:5], strict=True):
        assert grad.shape == parameter.shape
        torch.testing.assert_close(grad.double(), torch.as_tensor(values), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("mask_dtype", [torch.uint8, None, torch.float32])
@pytest.mark.parametrize("name", EXACT)
def test_builtin_providers_compute_the_step_of_the_present_inputs(name: str, mask_dtype) -> None:
    inputs = draw_inputs(21, 34, 5, mask_dtype=mask_dtype)
    if name == "fused-encoded" and inputs.weighted:
        with pytest.raises(ValueError, match="encoded ratings cannot carry weights"):
            registry.load(name).prepare(inputs)
        return
    step = registry.load(name).prepare(inputs)
    assert_exact(step, inputs)
    inputs.user_factors.mul_(0.5)  # in place, as between two samples
    assert_exact(step, inputs)


def test_a_users_function_is_loaded_with_the_files_beside_it(file: Path) -> None:
    registry.check(f"{file}:step")
    provider = registry.load(f"{file}:step")
    assert provider.name == f"{file}:step"
    inputs = draw_inputs(9, 7, 3)
    assert_exact(provider.prepare(inputs), inputs)


def test_an_installed_provider_is_found(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("theirs", "reference:autograd_loss_and_grads", registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group, name="theirs": [entry] * (name == "theirs"))
    assert registry.names()["theirs"] == "from reference:autograd_loss_and_grads"
    inputs = draw_inputs(9, 7, 3)
    assert_exact(registry.load("theirs").prepare(inputs), inputs)


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("fusde", "no-such-provider", "did you mean 'fused'"),
        ("{folder}/none.py:step", "no-such-provider", "no file "),
        ("{folder}/mine.py", "no-such-function", "expected a function of "),
        ("{folder}/mine.py:stp", "no-such-function", "did you mean 'step'"),
        ("{folder}/mine.py:value", "no-such-function", "has no function 'value'"),
        ("{folder}/broken.py:step", "provider-import-failed", "ZeroDivisionError"),
    ],
)
def test_what_cannot_be_loaded_is_named(file: Path, name: str, code: str, message: str) -> None:
    (file.parent / "broken.py").write_text("1 / 0\n")
    with pytest.raises(UsageError, match=message) as raised:
        registry.load(name.format(folder=file.parent))
    assert (raised.value.code, raised.value.argument) == (code, "provider")
