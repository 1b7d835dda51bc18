"""What all tests share: processes, skipping where there is no GPU, and memory that holds NaN until it is written."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mfbench.results.environment import usable_cpus

FOLDER = Path(__file__).parent
MOST_PROCESSES = 4  # a test may have two threads of its own

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a script's background; commands would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """None beside this one where times are taken, or where a GPU's memory would have to be shared."""
    alone = config.getoption("benchmark_only") or torch.cuda.is_available() or torch.xpu.is_available()
    return 0 if alone else min(usable_cpus(), MOST_PROCESSES)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.parent != FOLDER)  # whole pages and notebooks first: they take longest
    if torch.cuda.is_available() or torch.xpu.is_available():
        return
    skip = pytest.mark.skip(reason="no CUDA, ROCm or XPU device")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def memory_limit() -> Iterator[None]:
    """A worker that runs in the tests' own process limits it, and a sanitizer could not start any more."""
    if sys.platform != "linux":
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    yield
    resource.setrlimit(resource.RLIMIT_DATA, before)


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
