"""Peaks that are measured, and what they show: the fused step needs little beside its inputs, autograd much."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from mfbench.measure.devices import memory

linux = pytest.mark.skipif(sys.platform != "linux", reason="the high-water mark of resident memory is Linux's")

STEP = """
import torch
from kernels import mf_loss_and_grads
from mfbench.measure.devices.memory import peak_of
from mfbench.problems.cases import Case
from mfbench.problems.inputs import draw

def inputs(size):
    return draw(Case(suite="t", m=size, n=size, rank=32, density=0.8, ratings_dtype="float32", mask="uint8",
                     data="synthetic", seed=1))

mf_loss_and_grads(*inputs(64))  # loads libraries
large = inputs(8192)
print(*(peak_of(lambda: mf_loss_and_grads(*large), "cpu")[1] for _ in range(2)))
"""


@linux
@pytest.mark.parametrize("mebibytes", [40, 200])
def test_peak_is_seen(mebibytes: int) -> None:
    def allocate() -> float:
        return float(torch.ones(mebibytes << 18).sum())

    _, peak = memory.peak_of(allocate, "cpu")
    assert peak == pytest.approx(mebibytes << 20, rel=0.2, abs=1 << 20)


@linux
def test_fused_step_at_8192_stays_under_64_mib_and_buffers_that_it_keeps_count_each_time() -> None:
    done = subprocess.run([sys.executable, "-c", STEP], capture_output=True, text=True, check=True)
    first, second = map(int, done.stdout.split())
    assert 1 << 20 < first < 64 << 20
    assert second == pytest.approx(first, rel=0.5)


@linux
def test_allocations_beyond_free_memory_fail_instead_of_waking_the_killer() -> None:
    code = (
        "import torch\nfrom mfbench.measure.devices import memory\nmemory.limit_to_free_memory()\n"
        "torch.ones(1 << 20)\n"
        "try:\n    torch.empty(1 << 40)\nexcept RuntimeError as error:\n    print('refused', error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("refused")


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux alone")
def test_a_limit_for_a_while_leaves_the_process_as_it_was() -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    with memory.limited_to_free_memory():
        assert resource.getrlimit(resource.RLIMIT_DATA) != before
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
