"""A GPU as the checks use it, on stand-ins for PyTorch's streams and graphs: nothing here ran on a GPU."""

from __future__ import annotations

import functools

import pytest
import torch

from kernels import mf_loss_and_grads
from kernels.gpu import config
from mfbench.errors import UsageError
from mfbench.gpu_check import machine
from mfbench.gpu_check.machine import Gpu
from tests import cuda_graphs
from tests.problems import draw_inputs


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_there_is_no_machine() -> None:
    with pytest.raises(UsageError, match="expected a CUDA or ROCm GPU") as caught:
        Gpu()
    assert caught.value.code == "no-such-device"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    cuda_graphs.install(monkeypatch)
    made = object.__new__(Gpu)
    made._target = config.TARGETS["sm_90"]
    return made


def test_a_captured_step_is_replayed(gpu: Gpu) -> None:
    inputs = draw_inputs(21, 34, 5)
    replay = gpu.capture(functools.partial(mf_loss_and_grads, *inputs, backend="torch"))
    inputs.user_factors.mul_(0.5)
    loss, _ = replay()
    assert float(loss) == pytest.approx(float(mf_loss_and_grads(*inputs, backend="torch")[0]))


@pytest.mark.parametrize("waits", [False, True])
def test_work_is_enqueued_in_order_behind_a_delay(gpu: Gpu, monkeypatch: pytest.MonkeyPatch, waits: bool) -> None:
    order: list[str] = []
    monkeypatch.setattr(machine, "sleep", lambda cycles: order.append("delay"))
    monkeypatch.setattr(cuda_graphs.Stream, "query", lambda self: waits, raising=False)
    monkeypatch.setattr(cuda_graphs.Stream, "synchronize", lambda self: order.append("end"), raising=False)
    enqueued = gpu.behind_a_delay(lambda: order.append("prepare"), lambda: order.append("step"))
    assert order == ["delay", "prepare", "step", "end"]
    assert enqueued.waited == waits


def test_builds_that_are_not_shipped_are_known(gpu: Gpu) -> None:
    assert gpu.not_shipped(30, "tf32x3") == ""
    assert "the largest is" in gpu.not_shipped(5000, "ieee")


def test_the_hosts_time_covers_all_evaluations(gpu: Gpu, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([1.0, 3.5])
    monkeypatch.setattr(machine.time, "perf_counter", lambda: next(times))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    calls: list[int] = []
    reading = gpu.hooks({"x": lambda: calls.append(1)}, wall_clock=True).samplers["x"](5)
    assert reading.seconds == 2.5
    assert reading.gaps
    assert len(calls) == 6  # the first warms up
