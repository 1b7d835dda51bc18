"""Forked workers end, fail and see their environment as freshly started ones do."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mfbench.measure.worker import forkserver
from mfbench.measure.worker.process import WorkerProcess
from mfbench.results.codes import Code, ProviderFailure

pytestmark = pytest.mark.skipif(not forkserver.AVAILABLE, reason="workers are forked on Linux alone")

TELLS = """
import json, os, signal, sys, threading, torch
json.dump({
    "threads": torch.get_num_threads(), "folder": os.getcwd(), "variable": os.environ.get("A_VARIABLE"),
    "python_threads": threading.active_count(), "stdin": sys.stdin.read(),
    "group": os.getpgid(0) == os.getpid(), "sigchld": str(signal.getsignal(signal.SIGCHLD)),
}, open("told.json", "w"))
def step(*_): ...
"""


@pytest.fixture(params=[True, False], ids=["forked", "started"])
def load(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """Load a provider from its source in a worker."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(forkserver, "AVAILABLE", request.param)
    workers = []

    def loaded(source: str) -> WorkerProcess:
        Path("provider.py").write_text(source)
        workers.append(WorkerProcess("provider.py:step", "cpu", None, 20.0))
        workers[-1].request("rest")
        return workers[-1]

    yield loaded
    for worker in workers:
        worker.stop()


def server_of(worker: WorkerProcess) -> psutil.Process:
    """The parent of its guardian."""
    return psutil.Process(worker.pid).parents()[1]


@pytest.mark.parametrize(
    ("source", "code", "reason"),
    [
        ("import os; print('last words', flush=True); os._exit(7)", Code.EXIT, "code 7: last words"),
        ("import os; os.kill(os.getpid(), 11)", Code.SIGNAL, "SIGSEGV"),
        ("import os, sys; print('not caught', file=sys.stderr, flush=True); os.abort()",
         Code.SIGNAL, "SIGABRT: not caught"),
        ("import os; os.kill(os.getpid(), 9)", Code.KILLED, "SIGKILL"),
    ],
)  # fmt: skip
def test_how_a_worker_died_is_reported(load, source: str, code: Code, reason: str) -> None:
    with pytest.raises(ProviderFailure, match=reason) as failure:
        load(source)
    assert failure.value.code is code


def test_both_see_the_same_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # read by the library as it loads
    monkeypatch.setenv("A_VARIABLE", "set")
    load(TELLS)
    assert json.loads((tmp_path / "told.json").read_text()) == {
        "threads": 1, "folder": str(tmp_path), "variable": "set", "python_threads": 1, "stdin": "",
        "group": True, "sigchld": str(signal.SIG_DFL),
    }  # fmt: skip


def test_only_variables_that_libraries_read_as_they_load_take_another_server(monkeypatch: pytest.MonkeyPatch) -> None:
    first = forkserver._server()
    monkeypatch.setenv("A_VARIABLE", "set")
    assert forkserver._server() is first
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    assert forkserver._server() is not first


def test_a_variable_that_was_removed_is_not_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load) -> None:
    monkeypatch.setenv("A_VARIABLE", "set")
    forkserver.warm_up()
    monkeypatch.delenv("A_VARIABLE")
    load(TELLS)
    assert json.loads((tmp_path / "told.json").read_text())["variable"] is None


def test_packages_of_the_current_folder_do_not_stand_in_front(tmp_path: Path, load) -> None:
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "__init__.py").write_text("raise ImportError('another project')")
    load("from kernels import mf_loss_and_grads as step")


def test_nothing_is_left_of_a_worker_that_was_stopped() -> None:
    worker = WorkerProcess("fused", "cpu", 1, 20.0)
    worker.ready()
    assert worker.pid is not None
    process = psutil.Process(worker.pid)
    guardian = process.parent()
    assert guardian is not None
    assert guardian.pid != os.getpid()
    worker.stop()
    assert not process.is_running()
    assert psutil.wait_procs([guardian], timeout=10)[1] == []


def test_a_worker_can_be_stopped_at_any_moment() -> None:
    for turn in range(40):
        worker = WorkerProcess("fused", "cpu", 1, 20.0)
        worker.start()
        time.sleep(turn * 1e-3)
        worker.stop()
        assert worker.pid is None


def test_a_server_that_was_killed_takes_its_workers_along_and_is_replaced() -> None:
    worker = WorkerProcess("fused", "cpu", 1, 20.0)
    worker.ready()
    first = server_of(worker)
    first.kill()
    time.sleep(0.5)
    with pytest.raises(ProviderFailure) as failure:
        worker.request("rest")
    assert failure.value.code is Code.KILLED
    worker.ready()
    assert server_of(worker) != first
    worker.request("rest")
    worker.stop()
