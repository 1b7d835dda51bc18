"""Captured steps, on a stand-in for CUDA graphs: nothing here ran on a GPU."""

from __future__ import annotations

import pytest
import torch

from kernels import mf_loss_and_grads
from mfbench.providers import graphs, registry
from tests import cuda_graphs
from tests.mfbench.providers.test_registry import assert_exact
from tests.problems import draw_inputs


def test_a_replay_evaluates_the_present_inputs_into_the_same_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    made = cuda_graphs.install(monkeypatch)
    inputs = draw_inputs(21, 34, 5)
    calls = 0

    def step():
        nonlocal calls
        calls += 1
        return mf_loss_and_grads(*inputs, backend="torch")

    captured = graphs.Captured(step)
    assert calls == graphs.WARM_UPS + 1
    first = captured()
    assert_exact(captured, inputs)
    inputs.user_factors.mul_(0.5)
    assert_exact(captured, inputs)
    assert captured()[1].user_factors is first[1].user_factors
    assert calls == graphs.WARM_UPS + 1
    assert [graph.replays for graph in made] == [4]


def test_autograd_can_be_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    made = cuda_graphs.install(monkeypatch)
    inputs = draw_inputs(21, 34, 5)
    step = registry.load("autograd-graph").prepare(inputs)
    assert not made, "it is captured in its first call, whose time is that of compiling"
    assert_exact(step, inputs)
    inputs.item_factors.mul_(0.5)
    assert_exact(step, inputs)
    assert [graph.replays for graph in made] == [2]


def test_a_step_that_reads_a_value_on_the_host_cannot_be_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda_graphs.install(monkeypatch)
    values = torch.ones(3)
    with pytest.raises(RuntimeError, match="not permitted when stream is capturing"):
        graphs.Captured(lambda: float(values.sum()))


@pytest.mark.parametrize("name", registry.GRAPHS)
def test_providers_with_a_graph_say_that_they_need_a_gpu(name: str) -> None:
    with pytest.raises(graphs.NeedsGpu, match="a CUDA graph needs tensors on a GPU, got cpu"):
        registry.load(name).prepare(draw_inputs(4, 5, 2))
