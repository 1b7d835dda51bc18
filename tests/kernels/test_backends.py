"""The choice of a backend: `auto`, a name, and what is said of a name that does not exist or cannot run."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from kernels import backends as listed
from kernels import mf_loss_and_grads
from kernels.backends import MODULES, choose, implementation
from tests.problems import draw_inputs


def problem(on_cpu: bool = True) -> SimpleNamespace:
    """The part of a problem that `auto` looks at."""
    return SimpleNamespace(observations=SimpleNamespace(sparse=False, ratings=SimpleNamespace(is_cpu=on_cpu)))


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch):
    """Make all backends but the named ones unavailable."""

    def only(*names: str) -> None:
        for name in MODULES:
            reason = "" if name in names else f"{name} is broken"
            monkeypatch.setattr(implementation(name), "unavailable", lambda *_, reason=reason: reason)

    return only


def test_every_backend_is_listed_with_a_reason_unless_available(only) -> None:
    only("torch", "interpret")
    found = listed()
    assert list(found) == ["triton", "native", "torch", "interpret"]
    assert {name: state.reason for name, state in found.items() if not state.available} == {
        "triton": "triton is broken", "native": "native is broken"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("on_cpu", "available", "chosen"),
    [(True, ("native", "torch"), "native"), (True, ("triton", "torch", "interpret"), "torch"),
     (False, ("triton", "torch"), "triton"), (False, ("native", "torch"), "torch")],
)  # fmt: skip
def test_auto_takes_the_fused_kernel_of_the_device_or_falls_back(only, on_cpu, available, chosen) -> None:
    only(*available)
    assert choose("auto", problem(on_cpu)) is implementation(chosen)


def test_a_backend_asked_for_by_name_runs_or_says_why_not(only) -> None:
    only("interpret")
    assert choose("interpret", problem()) is implementation("interpret")
    with pytest.raises(RuntimeError, match=r"'native'.*native is broken"):
        choose("native", problem())


@pytest.mark.parametrize(("name", "error", "message"), [
    ("nativ", ValueError, "expected one of auto, triton, native, torch, interpret, got 'nativ'; did you mean 'native'"),
    ("numpy", ValueError, "got 'numpy'$"), (3, TypeError, "got 3"), (None, TypeError, "got None"),
])  # fmt: skip
def test_a_wrong_name_is_refused(name, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        mf_loss_and_grads(*draw_inputs(3, 4, 2), backend=name)


def test_a_gpu_kernel_refuses_tensors_on_a_cpu() -> None:
    with pytest.raises(RuntimeError, match="triton"):
        mf_loss_and_grads(torch.rand(3, 2), torch.rand(4, 2), torch.rand(3), torch.rand(4), torch.rand(()),
                          torch.rand(3, 4), backend="triton")  # fmt: skip
