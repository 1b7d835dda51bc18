"""OpenMP's library sees the policy, unless the user chose one or the provider computes with OpenMP's threads itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch  # noqa: F401 (loads OpenMP's library)

from mfbench.installation import ROOT
from mfbench.train.waiting import VARIABLE, let_threads_sleep

MAPS = Path("/proc/self/maps")  # with the libraries that this process has loaded, on Linux
GNU = pytest.mark.skipif(
    not MAPS.exists() or "libgomp" not in MAPS.read_text(), reason="PyTorch has another OpenMP than GNU's"
)
SPINS = re.compile(r"GOMP_SPINCOUNT = '(\d+)'")


def spins(*arguments: str, **variables: str) -> int:
    """Return how often OpenMP's threads look for work before they sleep, as GNU's library reports it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    environment |= {"OMP_DISPLAY_ENV": "verbose", "PYTHONPATH": str(ROOT)} | variables
    command = [sys.executable, "-m", "mfbench", "train", "--epochs", "1", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    found = SPINS.search(done.stderr)
    assert found, done.stderr
    return int(found[1])


@GNU
def test_threads_sleep_at_once_where_the_kernel_has_its_own() -> None:
    assert spins() == 0
    assert spins("--provider", "autograd") > 0


@GNU
def test_the_choice_of_the_user_stands() -> None:
    assert spins(OMP_WAIT_POLICY="active") > 0
    assert spins(GOMP_SPINCOUNT="123") == 123


def test_nothing_is_set_once_the_library_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch is loaded here; the variable would only reach processes that are started later."""
    monkeypatch.delenv(VARIABLE, raising=False)
    let_threads_sleep("fused")
    assert VARIABLE not in os.environ
