"""Compile the CPU kernel with Clang, and for Arm under emulation, and check its results."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.compilers
SOURCE = Path(__file__).with_name("step_check.cpp")
FLAGS = ("-std=c++17", "-pthread", "-O2", "-ffp-contract=fast")


@pytest.mark.parametrize(
    ("compiler", "flags", "emulator", "vector"),
    [
        pytest.param("clang++", ("-march=native",), None, None, id="clang"),
        pytest.param("aarch64-linux-gnu-g++", ("-static",), "qemu-aarch64-static", 16, id="arm"),
    ],
)
def test_the_step_is_right(tmp_path, compiler, flags, emulator, vector):
    if vector is None and platform.machine() != "x86_64":
        pytest.skip("the flags are those of x86-64")
    for tool in (compiler, emulator):
        if tool and shutil.which(tool) is None:
            pytest.skip(f"no {tool} on PATH")
    program = tmp_path / "check"
    subprocess.run([compiler, *FLAGS, *flags, str(SOURCE), "-o", str(program)], check=True, timeout=240)
    run = subprocess.run([*([emulator] if emulator else []), str(program)], capture_output=True, text=True, timeout=240)
    assert run.returncode == 0, run.stdout[-2000:]
    assert "1344 cases" in run.stdout
    assert vector is None or f"vectors of {vector} bytes" in run.stdout
