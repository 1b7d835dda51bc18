"""Compile the CPU kernel for this machine, once, and cache the library.

Environment variables: `CXX` names the compiler, `MFBENCH_SANITIZE` the sanitizers to build with (for example
`address,undefined`); `kernels/cache.py` chooses the folder of the cache.
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
COMPILERS = ("g++", "c++", "clang++")  # in order of preference
TIMEOUT_S = 300  # bounds one run of the compiler


class BuildError(Exception):
    """The kernel cannot be compiled or loaded; the message tells the user why."""


@cache
def load_kernel() -> ctypes.CDLL:
    """Return the compiled kernel. Build it first if the cache has none for this source, compiler and CPU.

    Raises:
        BuildError: There is no compiler, compilation fails, or the library cannot be loaded.
    """
    compiler = find_compiler()
    version = _run([*compiler, "--version"])
    errors = []
    source = [file.read_text() for file in (SOURCE, *HEADERS)]
    for flags in flag_sets():
        identity = "\0".join([*source, *compiler, version, *flags, cpu_identity()])
        key = hashlib.sha256(identity.encode()).hexdigest()[:24]
        library = cache_folder() / f"fused-{key}.so"
        try:
            if library.exists():
                try:
                    return _load(library)
                except OSError:  # truncated, or built for another system: build it again
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


def find_compiler() -> list[str]:
    """Return the command of the C++ compiler: `CXX` if set, else the first of `COMPILERS` on PATH.

    Raises:
        BuildError: There is none.
    """
    chosen = shlex.split(os.environ.get("CXX", ""))
    if chosen:
        if shutil.which(chosen[0]) is None:
            raise BuildError(f"CXX names a C++ compiler that does not exist: {chosen[0]}")
        return chosen
    for name in COMPILERS:
        if shutil.which(name):
            return [name]
    raise BuildError(f"no C++ compiler on PATH (tried {', '.join(COMPILERS)}); set CXX to use another")


def flag_sets() -> list[list[str]]:
    """Return lists of compiler flags, best first: the second is for compilers that do not know this CPU."""
    common = ["-std=c++17", "-shared", "-fPIC", "-pthread", "-fvisibility=hidden", "-ffp-contract=fast"]
    common += ["-fno-math-errno", "-fno-trapping-math"]  # nothing reads errno or the floating-point exception flags
    sanitizers = os.environ.get("MFBENCH_SANITIZE")
    if sanitizers:
        common += ["-O1", "-g", f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
    else:
        common += ["-O3"]
    native = "-march=native" if platform.machine().lower() in ("x86_64", "amd64", "i686") else "-mcpu=native"
    return [[*common, native], common]


def _compile(compiler: list[str], flags: list[str], library: Path) -> None:
    """Compile to a temporary file and rename it, so that several processes may build at once."""
    with tempfile.NamedTemporaryFile(dir=library.parent, prefix=library.stem, suffix=".tmp", delete=False) as file:
        temporary = Path(file.name)
    try:
        _run([*compiler, *flags, str(SOURCE), "-o", str(temporary)])
        os.replace(temporary, library)
    finally:
        temporary.unlink(missing_ok=True)


def _run(command: list[str]) -> str:
    """Run a command and return its standard output.

    Raises:
        BuildError: The command fails; the message quotes the first error that it printed.
    """
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


def cpu_identity() -> str:
    """Return this CPU's model and features, so that a cache shared by machines never serves unsupported code."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    wanted = ("model name", "flags", "Features", "CPU part", "CPU implementer")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))
