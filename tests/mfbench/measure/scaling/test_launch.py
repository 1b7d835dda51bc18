"""Launches by torchrun's agent: results, and processes that fail."""

from __future__ import annotations

import os
import signal
import time

import pytest
import torch.distributed as dist

from mfbench.measure.scaling.launch import launch
from mfbench.results.codes import Code, ProviderFailure

pytestmark = pytest.mark.processes


def ranks(factor: int) -> list[int] | None:
    dist.init_process_group("gloo")
    found: list[int] = [0] * dist.get_world_size()
    dist.all_gather_object(found, factor * dist.get_rank())
    dist.destroy_process_group()
    return found if os.environ["RANK"] == "0" else None


def fail(how: str) -> None:
    if os.environ["RANK"] == "1":
        if how == "exception":
            raise ValueError("no such luck")
        if how == "exit":
            os._exit(7)
        os.kill(os.getpid(), signal.SIGKILL if how == "killed" else signal.SIGSEGV)
    time.sleep(60)  # ended by the agent


def test_the_first_process_answers() -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert launch(2, ranks, 10) == [0, 10]
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("how", "code", "reason"),
    [
        ("exception", Code.EXCEPTION, "process 1: ValueError: no such luck"),
        ("killed", Code.KILLED, "process 1 got SIGKILL"),
        ("crashed", Code.SIGNAL, "process 1 died of SIGSEGV"),
        ("exit", Code.EXIT, "process 1 ended with exit code 7"),
    ],
)
def test_a_process_that_fails_ends_the_others(
    how: str, code: Code, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ProviderFailure) as failure:
        launch(2, fail, how)
    assert (failure.value.code, failure.value.reason) == (code, reason)
    assert not capfd.readouterr().err  # what the agent logs is in the record
