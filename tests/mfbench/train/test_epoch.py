"""Updates against PyTorch's optimizers; epochs replayed from a CUDA graph, on a stand-in: nothing here ran on a GPU."""

from __future__ import annotations

import functools

import pytest
import torch

from kernels import mf_loss_and_grads
from mfbench.providers.registry import Provider, load
from mfbench.train.epoch import MOMENTUM, Update
from mfbench.train.history import TrainingRun
from mfbench.train.loop import train
from mfbench.train.preconditioner import Preconditioner
from mfbench.train.task import PARAMETERS, Task, notebook_task
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


def precise_task() -> Task:
    task = notebook_task((21, 34), rank=3, seed=9)
    return task._replace(
        inputs=task.inputs._replace(**{name: getattr(task.inputs, name).double() for name in PARAMETERS})
    )


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "preconditioned"])
def test_updates_are_those_of_torch_and_continue_from_its_state(optimizer: str) -> None:
    """As checkpoints have it that were written when training called PyTorch's optimizer."""
    ours, theirs = precise_task(), precise_task()
    lr = 0.3 if optimizer == "preconditioned" else 1e-5
    update, preconditioner = Update(ours, optimizer, lr), Preconditioner(theirs)
    nesterov = optimizer == "preconditioned"
    rule = torch.optim.SGD(theirs.inputs[:5], lr, momentum=0 if optimizer == "sgd" else MOMENTUM, nesterov=nesterov)

    def state() -> dict[str, torch.Tensor]:
        kept = zip(PARAMETERS, theirs.inputs[:5], strict=True)
        return {f"{name}.{key}": value for name, p in kept for key, value in rule.state[p].items() if value is not None}

    for epoch in range(12):
        if epoch == 6:
            update = Update(ours, optimizer, lr)
            update.restore(state())
        grads = mf_loss_and_grads(*ours.inputs)[1]
        before = [grad.clone() for grad in grads]
        update(grads)
        assert all(map(torch.equal, grads, before))  # a provider may return the same tensors again
        grads = mf_loss_and_grads(*theirs.inputs)[1]
        scales = preconditioner.scales() if nesterov else [1] * 5
        for parameter, grad, scale in zip(theirs.inputs[:5], grads, scales, strict=True):
            parameter.grad = grad / scale
        rule.step()
        torch.testing.assert_close(list(ours.inputs[:5]), list(theirs.inputs[:5]), rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(update.state(), state(), rtol=1e-9, atol=1e-12)
