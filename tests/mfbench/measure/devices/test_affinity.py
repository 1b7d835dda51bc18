"""Where a thread runs, and when a worker's threads sleep."""

from __future__ import annotations

import os
import sys
import threading
import time

import pytest
import torch

from mfbench.measure.devices import affinity
from mfbench.measure.worker import main
from mfbench.measure.worker.main import Worker

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells where a thread runs")


@linux
def test_a_thread_moves_and_stays_free() -> None:
    allowed = os.sched_getaffinity(0)
    for core in sorted(allowed):
        affinity.migrate_to(core)
        assert os.sched_getaffinity(0) == allowed
        assert affinity.current() in allowed


@linux
@pytest.mark.skipif(os.cpu_count() == 1, reason="one core")
def test_it_is_on_that_core_right_after(monkeypatch) -> None:
    allowed, seen = os.sched_getaffinity(0), []
    bind = os.sched_setaffinity
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, to: (seen.append(affinity.current()), bind(pid, to)))
    for core in sorted(allowed):
        affinity.migrate_to(core)
    assert seen[1::2] == sorted(allowed)


@linux
def test_a_core_that_is_not_allowed_is_ignored() -> None:
    allowed = os.sched_getaffinity(0)
    affinity.migrate_to(max(allowed) + 1000)
    assert os.sched_getaffinity(0) == allowed


@linux
def test_a_sandbox_that_forbids_it_is_no_failure(monkeypatch) -> None:
    def forbidden(pid: int, allowed: set[int]) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setaffinity", forbidden)
    affinity.migrate_to(min(os.sched_getaffinity(0)))


def test_where_the_system_does_not_tell_nothing_happens(monkeypatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    affinity.migrate_to(0)
    assert affinity.current() is None


@pytest.fixture(autouse=True)
def _threads_restored():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


TRIES = 5  # other programs may keep the thread from its core for as long as a worker waits


def spin(seconds: float) -> threading.Thread:
    def run() -> None:
        until = time.thread_time() + seconds
        while time.thread_time() < until:
            pass

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@linux
def test_a_worker_rests_once_its_threads_sleep() -> None:
    resting = Worker("closed-form", "cpu", 1)

    def waited() -> bool:
        thread = spin(0.01)
        resting.rest()
        alive = thread.is_alive()
        thread.join()
        return not alive

    assert any(waited() for _ in range(TRIES))


@linux
@pytest.mark.skipif(os.cpu_count() == 1, reason="one core: OpenMP does not spin")
def test_a_worker_rests_once_openmp_sleeps() -> None:
    resting = Worker("closed-form", "cpu", 2)
    numbers = torch.rand(600, 600)

    def rested() -> bool:
        (numbers * numbers).sum()
        resting.rest()
        return not main.other_threads_run()

    assert sum(rested() for _ in range(TRIES)) > TRIES / 2


@linux
def test_a_thread_that_never_sleeps_is_not_waited_for(monkeypatch) -> None:
    monkeypatch.setattr(main, "REST_S", 0.02)
    resting = Worker("closed-form", "cpu", 1)
    thread = spin(0.3)
    resting.rest()
    assert thread.is_alive()
    thread.join()
