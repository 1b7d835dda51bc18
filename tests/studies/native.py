"""Compile the C++ of studies."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from kernels.cpu.build import find_compiler


@cache
def compiled(name: str) -> ctypes.CDLL:
    """Return the library that a C++ file of this folder makes."""
    source = str(Path(__file__).with_name(name))
    options = ["-std=c++17", "-O3", "-march=native", "-shared", "-fPIC", "-pthread"]
    with tempfile.TemporaryDirectory() as folder:
        library = f"{folder}/study.so"
        subprocess.run([*find_compiler(), *options, source, "-o", library], check=True)
        return ctypes.CDLL(library)


def core_distance() -> float:
    """Return the nanoseconds that a cache line takes from one core to another; 0 if there is but one.

    Cores that share a last-level cache are near each other. A virtual machine's may be moved apart at any time.
    """
    function = compiled("core_distance.cpp").core_distance
    function.restype = ctypes.c_double
    return float(function())
