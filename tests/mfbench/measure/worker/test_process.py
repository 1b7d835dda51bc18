"""A worker process from the harness's side: what is said where a provider cannot be loaded, at first or again."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from mfbench.errors import UsageError
from mfbench.measure.worker.process import WorkerProcess
from mfbench.results.codes import Code, ProviderFailure

STEP = "def step(*arguments): pass\n"


def test_a_file_that_crashes_while_it_is_imported_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("import ctypes\nctypes.string_at(0)\n" + STEP)
    worker = WorkerProcess(f"{path}:step", "cpu", 1, 20.0)
    with pytest.raises(UsageError, match=r"mine\.py:step cannot be loaded: .*SIGSEGV"):
        worker.ready()
    assert worker.pid is None


def test_a_file_that_cannot_be_loaded_again_is_the_providers_failure(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(STEP)
    worker = WorkerProcess(f"{path}:step", "cpu", 1, 20.0)
    worker.ready()
    worker.stop()
    path.write_text("saved halfway(")
    with pytest.raises(ProviderFailure, match=r"mine\.py cannot be imported: SyntaxError") as failure:
        worker.request("rest")
    assert failure.value.code is Code.PROVIDER_LOAD_FAILED
    worker.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="scores of the out-of-memory killer are Linux's")
def test_the_system_kills_a_worker_before_the_harness_when_memory_runs_out() -> None:
    worker = WorkerProcess("autograd", "cpu", 1, 60.0)
    worker.ready()
    badness = Path(f"/proc/{worker.pid}/oom_score"), Path("/proc/self/oom_score")
    of_worker, of_harness = (int(path.read_text()) for path in badness)
    worker.stop()
    assert of_worker > of_harness


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_an_error_on_a_gpu_ends_the_process(tmp_path: Path) -> None:
    worker = WorkerProcess("autograd", "cuda", 1, 60.0)
    with pytest.raises(UsageError):
        worker.ready()
    assert worker.pid is None


@pytest.mark.parametrize(
    ("content", "message", "code"),
    [
        (STEP, "mine.py has no function 'nope'; there are step", "no-such-function"),
        (STEP, "mine.py has no function 'stop'; did you mean 'step'?", "no-such-function"),
        ("", "mine.py has no function 'nope'; there are none", "no-such-function"),
        ("nope = 3", "mine.py has no function 'nope'; there are none", "no-such-function"),
        ("1 / 0", "mine.py cannot be imported: ZeroDivisionError", "provider-load-failed"),
    ],
)
def test_why_a_provider_cannot_be_loaded_keeps_its_code(tmp_path: Path, content: str, message: str, code: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(content)
    worker = WorkerProcess(f"{path}:{'stop' if 'stop' in message else 'nope'}", "cpu", 1, 20.0)
    with pytest.raises(UsageError) as error:
        worker.ready()
    worker.stop()
    assert message in error.value.message
    assert error.value.code == code
