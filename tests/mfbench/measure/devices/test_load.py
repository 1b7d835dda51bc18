"""Background load counts other programs' CPU time, and not that of the harness and its workers."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from mfbench.measure.devices.load import BackgroundLoad

BUSY_S = 1.5


@pytest.fixture
def busy() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def test_a_program_counts_unless_it_is_a_worker(busy: subprocess.Popen[bytes]) -> None:
    with_worker, without = BackgroundLoad([busy.pid]), BackgroundLoad([])
    time.sleep(BUSY_S)
    assert without.cores() > 0
    start = with_worker.cores()
    end = time.perf_counter() + BUSY_S
    without.cores()
    while time.perf_counter() < end:  # this process itself
        pass
    both, others = without.cores(), with_worker.cores()
    assert both > others  # whatever else runs on this machine is in both
    assert start >= 0


def test_a_worker_that_is_gone_is_no_trouble(busy: subprocess.Popen[bytes]) -> None:
    load = BackgroundLoad([busy.pid])
    busy.kill()
    busy.wait()
    time.sleep(0.05)
    assert load.cores() >= 0
    assert BackgroundLoad([busy.pid]).cores() >= 0
