"""What all tests share: GPU tests skip where there is no GPU, and memory that nothing has written can hold NaN."""

from __future__ import annotations

import pytest
import torch


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available() or torch.xpu.is_available():
        return
    skip = pytest.mark.skip(reason="no CUDA, ROCm or XPU device")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)


@pytest.fixture(scope="module")
def poisoned():
    """Float tensors are allocated full of NaN, so that an output that nobody wrote shows."""

    def filled(allocate):
        def allocated(*args, **keywords):
            memory = allocate(*args, **keywords)
            return memory.fill_(float("nan")) if memory.is_floating_point() else memory

        return allocated

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")):
            patch.setattr(owner, name, filled(getattr(owner, name)))
        yield
