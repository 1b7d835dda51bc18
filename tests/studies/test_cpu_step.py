"""`cpu_step`: both checkouts are timed in turn, with the flags that were given."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from kernels import backends
from tests.studies import cpu_step

pytestmark = pytest.mark.studies


@pytest.mark.skipif(not backends()["native"].available, reason=backends()["native"].reason or "there is a kernel")
def test_a_checkout_against_itself() -> None:
    root = Path(__file__).parents[2]
    cases = ["--case", "200x300,30,float64,int32", "--case", "300x200,8,codes,none"]
    done = CliRunner().invoke(cpu_step.main, ["--against", str(root), *cases, "--rounds", "5"], catch_exceptions=False)
    assert done.exit_code == 0
    found = re.findall(r"([\d.]+) ms │ +(\d+)% +│ ([\d.]+)", done.output)
    assert len(found) == 2
    for step, share, ratio in found:
        assert float(step) > 0
        assert 0 < float(share) < 150
        assert 0.2 < float(ratio) < 5


def test_flags_come_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "echo")
    monkeypatch.setattr(cpu_step, "cache_folder", lambda: tmp_path)
    script = cpu_step.compiler_with("-mno-avx512f")
    assert os.access(script, os.X_OK)
    printed = subprocess.run([script, "-march=native", "x.cpp"], capture_output=True, text=True, check=True).stdout
    assert printed.split() == ["-march=native", "x.cpp", "-mno-avx512f"]
