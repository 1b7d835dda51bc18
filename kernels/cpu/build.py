"""Compiles the CPU kernel for the machine it runs on, once, and keeps the library in a cache.

The environment chooses: `CXX` the compiler, `MFBENCH_SANITIZE` the sanitizers to build with, for example
`address,undefined`, and the folder of the cache (`kernels/cache.py`).
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from kernels.cache import cache_folder

SOURCE = Path(__file__).with_name("fused.cpp")
HEADERS = sorted(SOURCE.parent.glob("*.h"))
COMPILERS = ("g++", "c++", "clang++")
TIMEOUT_S = 300


class BuildError(Exception):
    """Why there is no compiled kernel, in words for the user."""


@cache
def load_kernel() -> ctypes.CDLL:
    """The compiled kernel, built first where the cache has none for this source, compiler and CPU.

    Raises:
        BuildError: no compiler, a compile error, or a library that cannot be loaded.
    """
    compiler = _find_compiler()
    version = _output([*compiler, "--version"])
    errors = []
    source = [file.read_text() for file in (SOURCE, *HEADERS)]
    for flags in _flag_sets():
        identity = "\0".join([*source, *compiler, version, *flags, _cpu_identity()])
        key = hashlib.sha256(identity.encode()).hexdigest()[:24]
        library = cache_folder() / f"fused-{key}.so"
        try:
            if library.exists():
                try:
                    return _load(library)
                except OSError:  # torn or foreign: build it again
                    library.unlink(missing_ok=True)
            _compile(compiler, flags, library)
            return _load(library)
        except (BuildError, OSError) as error:
            errors.append(str(error))
    raise BuildError(errors[0])


def _load(library: Path) -> ctypes.CDLL:
    kernel = ctypes.CDLL(str(library))
    kernel.mf_step.argtypes = [ctypes.c_char_p]
    kernel.mf_step.restype = ctypes.c_int
    kernel.mf_release.restype = None
    kernel.mf_multiply_and_add.argtypes = [ctypes.c_int64, ctypes.c_int64]
    kernel.mf_multiply_and_add.restype = ctypes.c_double
    return kernel


def _find_compiler() -> list[str]:
    chosen = shlex.split(os.environ.get("CXX", ""))
    if chosen:
        if shutil.which(chosen[0]) is None:
            raise BuildError(f"the C++ compiler named by CXX is not there: {chosen[0]}")
        return chosen
    for name in COMPILERS:
        if shutil.which(name):
            return [name]
    raise BuildError(f"no C++ compiler found (looked for {', '.join(COMPILERS)}; CXX names another)")


def _flag_sets() -> list[list[str]]:
    """Compiler flags, best first: a compiler may not know this CPU."""
    common = ["-std=c++17", "-shared", "-fPIC", "-pthread", "-fvisibility=hidden", "-ffp-contract=fast"]
    common += ["-fno-math-errno", "-fno-trapping-math"]  # nobody reads errno or the exception flags
    sanitizers = os.environ.get("MFBENCH_SANITIZE")
    if sanitizers:
        common += ["-O1", "-g", f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
    else:
        common += ["-O3"]
    native = "-march=native" if platform.machine().lower() in ("x86_64", "amd64", "i686") else "-mcpu=native"
    return [[*common, native], common]


def _compile(compiler: list[str], flags: list[str], library: Path) -> None:
    """Compiles beside the target and renames, so that two processes may build at once."""
    with tempfile.NamedTemporaryFile(dir=library.parent, prefix=library.stem, suffix=".tmp", delete=False) as file:
        temporary = Path(file.name)
    try:
        command = [*compiler, *flags, str(SOURCE), "-o", str(temporary)]
        _output(command)
        os.replace(temporary, library)
    finally:
        temporary.unlink(missing_ok=True)


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise BuildError(f"{shlex.join(command)} took more than {TIMEOUT_S} s") from None
    except OSError as error:
        raise BuildError(f"{shlex.join(command)}: {error}") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        message = next((line for line in lines if "error" in line), lines[0])
        raise BuildError(f"{shlex.join(command)}: {message}")
    return done.stdout


def _cpu_identity() -> str:
    """Model and features of this CPU, so that a shared cache never serves another's instructions."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    wanted = ("model name", "flags", "Features", "CPU part", "CPU implementer")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))
