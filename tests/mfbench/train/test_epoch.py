"""Epochs replayed from a CUDA graph, on a stand-in for PyTorch's: nothing here ran on a GPU."""

from __future__ import annotations

import functools

import pytest
import torch

from kernels import mf_loss_and_grads
from mfbench.providers.registry import Provider, load
from mfbench.train.history import TrainingRun
from mfbench.train.loop import train
from mfbench.train.task import notebook_task
from tests import cuda_graphs

EPOCHS, EVERY = 250, 60


def tiled(inputs):
    return functools.partial(mf_loss_and_grads, *inputs, backend="torch")


def trained(provider: Provider, optimizer: str = "sgd", epochs: int = EPOCHS) -> tuple[TrainingRun, list[torch.Tensor]]:
    task = notebook_task((21, 34), rank=3, seed=9)
    run = train(task, provider, epochs, EVERY, optimizer, lr=1e-4)
    return run, list(task.inputs[:5])


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "preconditioned"])
@pytest.mark.parametrize("provider", [Provider("tiled", tiled), load("autograd")], ids=lambda it: it.name)
def test_training_is_the_same_with_and_without_a_graph(
    provider: Provider, optimizer: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    eager, expected = trained(provider, optimizer)
    made = cuda_graphs.install(monkeypatch)
    replayed, parameters = trained(provider, optimizer)
    for ours, theirs in zip(parameters, expected, strict=True):
        assert torch.equal(ours, theirs)
    assert [entry[:4] for entry in replayed.entries] == [entry[:4] for entry in eager.entries]
    looked_at = {*range(0, EPOCHS, EVERY), *range(0, EPOCHS, 100), EPOCHS}
    assert [graph.replays for graph in made] == [EPOCHS + 1 - len(looked_at) + 1]  # one to see that it is right
    assert "not replayed" not in capsys.readouterr().err


def reads_the_loss(inputs):
    def step():
        loss, grads = mf_loss_and_grads(*inputs, backend="torch")
        return loss, [grad * (1 if float(loss) > 0 else 2) for grad in grads]

    return step


def computes_unseen(inputs):
    """Computes in NumPy, which no capture sees, as a library with a stream of its own does."""

    def step():
        loss, grads = mf_loss_and_grads(*inputs, backend="torch")
        return loss, [torch.from_numpy(grad.numpy().copy()) for grad in grads]

    return step


@pytest.mark.parametrize(
    ("prepare", "optimizer", "why"),
    [
        (reads_the_loss, "sgd", "not permitted when stream is capturing"),
        (computes_unseen, "sgd", "a replay gives another update than the step"),
        (tiled, "adam", "not permitted when stream is capturing"),  # on a GPU its step count stays there
    ],
)
def test_what_no_graph_can_hold_runs_eagerly_with_a_note(
    prepare, optimizer: str, why: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, expected = trained(Provider("mine", prepare), optimizer)
    cuda_graphs.install(monkeypatch)
    _, parameters = trained(Provider("mine", prepare), optimizer)
    for ours, theirs in zip(parameters, expected, strict=True):
        assert torch.equal(ours, theirs)
    note = capsys.readouterr().err
    assert "epochs are not replayed as a CUDA graph" in note
    assert why in note


def test_a_run_without_updates_captures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made = cuda_graphs.install(monkeypatch)
    run, _ = trained(Provider("tiled", tiled), epochs=0)
    assert len(run.entries) == 1
    assert not made
