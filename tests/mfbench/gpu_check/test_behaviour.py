"""Determinism, graphs and streams: each check passes on the stand-in, and finds what was planted."""

from __future__ import annotations

import pytest
import torch

from kernels.gpu import interpret
from mfbench.gpu_check import behaviour
from mfbench.gpu_check.machine import Enqueued
from mfbench.gpu_check.task import Context, Result
from tests.mfbench.gpu_check.stand_in import StandIn

pytestmark = pytest.mark.interpret


def found(context: Context, name: str) -> Result:
    tasks = [*behaviour.determinism(context), *behaviour.graph_and_stream(context)]
    return next(task.run() for task in tasks if task.name == name)


@pytest.mark.parametrize(
    "name", ["ieee rank 30", "replay of tf32x3", "replay of ieee deterministic", "side stream, ieee"]
)
def test_the_step_behaves(context: Context, name: str) -> None:
    assert found(context, name).wrong == ""


def test_other_bits_are_found(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    step, turns = interpret.step, iter(range(100))

    def drifting(*arguments):
        loss, grads = step(*arguments)
        if next(turns) == 3:
            grads.user_factors[0, 0] = torch.nextafter(grads.user_factors[0, 0], torch.tensor(torch.inf))
        return loss, grads

    monkeypatch.setattr(interpret, "step", drifting)
    assert found(context, "tf32x3 rank 30").wrong == (
        "evaluation 4 differs from the first in 1 of 2100 entries of an output of shape (70, 30)"
    )


def test_a_replay_that_sees_old_parameters_is_found(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    def stale(self, step):
        kept = step()
        return lambda: kept

    monkeypatch.setattr(StandIn, "capture", stale)
    result = found(context, "replay of ieee")
    assert "user_factors is off by" in result.wrong
    assert result.records[0]["status"] == "wrong"


def test_a_step_on_another_stream_than_its_inputs_is_found(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    def step_first(self, prepare, step):
        outputs = step()
        prepare()
        return Enqueued(outputs, waited=False)

    monkeypatch.setattr(StandIn, "behind_a_delay", step_first)
    assert "is off by" in found(context, "side stream, ieee").wrong


def test_a_host_that_waits_is_found(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StandIn, "behind_a_delay", lambda _, prepare, step: Enqueued(step(), waited=True))
    with pytest.raises(RuntimeError, match="the host waited for the device"):
        found(context, "side stream, ieee")
