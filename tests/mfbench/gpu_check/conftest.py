from __future__ import annotations

import pytest

from mfbench.gpu_check.task import Context
from tests.mfbench.gpu_check.stand_in import StandIn


@pytest.fixture
def context() -> Context:
    return Context(StandIn(), "run", seed=1)


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreted kernel in tf32x3 loses one item's gradient."""
    from kernels.gpu import interpret

    step = interpret.step

    def wrong(problem, precision, deterministic, gradients):
        loss, grads = step(problem, precision, deterministic, gradients)
        if grads is not None and precision == "tf32x3":
            grads.item_factors[-1] = 0
        return loss, grads

    monkeypatch.setattr(interpret, "step", wrong)
