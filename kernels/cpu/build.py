"""Compile the CPU kernel for this machine, once, and cache the library.

Environment variables: `CXX` names the compiler, `MFBENCH_SANITIZE` the sanitizers to build with (for example
`address,undefined`); `kernels/cache.py` chooses the folder of the cache.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import math
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch

from kernels.cache import cache_folder

SOURCE = Path(__file__).with_name("fused.cpp")
HEADERS = sorted(SOURCE.parent.glob("*.h"))
COMPILERS = ("g++", "c++", "clang++")  # in order of preference
# After the options in CXX, so that none changes results, and before ours, some of which they would reset
IEEE = (
    "-fno-fast-math",
    "-fno-unsafe-math-optimizations",
    "-fno-associative-math",
    "-fno-reciprocal-math",
    "-fno-finite-math-only",
    "-fsigned-zeros",
)
DIGITS = 24  # of the SHA-256 digests in a file's name
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
    source = [file.read_text() for file in (SOURCE, *HEADERS)]
    errors = []
    for flags in flag_sets():
        identity = "\0".join([*source, *compiler, version, *flags, cpu_identity()])
        key = hashlib.sha256(identity.encode(errors="surrogateescape")).hexdigest()[:DIGITS]
        try:
            return _cached(key) or _load(_compile(compiler, flags, key))
        except (BuildError, OSError) as error:
            errors.append(str(error))
    raise BuildError(errors[0])


def _cached(key: str) -> ctypes.CDLL | None:
    """Return the library with this key from the cache; None if there is none that is whole and loads.

    A file's name ends with the digest of its contents: the loader does not notice that a library is cut short, and a
    process that then runs it dies of SIGBUS.
    """
    for library in sorted(cache_folder().glob(f"fused-{key}-*.so")):
        with contextlib.suppress(OSError):  # built for another system, or not readable
            if library.stem.rpartition("-")[2] == _digest(library):
                return _load(library)
            library.unlink()
    return None


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:DIGITS]


def _load(library: Path) -> ctypes.CDLL:
    """Load a library, which must compute by the rules of IEEE 754.

    Raises:
        BuildError: It was compiled with options such as `-ffast-math`.
        OSError: It cannot be loaded.
    """
    flushed = _flushes_subnormals()
    kernel = ctypes.CDLL(str(library))
    kernel.mf_step.argtypes = [ctypes.c_char_p]
    kernel.mf_step.restype = ctypes.c_int
    kernel.mf_sparse_step.argtypes = [ctypes.c_char_p]
    kernel.mf_sparse_step.restype = ctypes.c_int
    kernel.mf_rows_are_sorted.argtypes = [ctypes.c_char_p, *[ctypes.c_int64] * 3]
    kernel.mf_rows_are_sorted.restype = ctypes.c_int
    kernel.mf_release.restype = None
    kernel.mf_multiply_and_add.argtypes = [ctypes.c_int64, ctypes.c_int64]
    kernel.mf_multiply_and_add.restype = ctypes.c_double
    kernel.mf_is_ieee.argtypes = [ctypes.c_double, ctypes.c_double, ctypes.c_double]
    if _flushes_subnormals() != flushed:  # code that -ffast-math links in has changed the mode of this thread
        torch.set_flush_denormal(flushed)
    if not kernel.mf_is_ieee(1e30, 1.0, math.nan):
        raise BuildError(f"{' '.join(find_compiler())} compiles with -ffast-math or the like, which changes results")
    return kernel


def _flushes_subnormals() -> bool:
    """Return whether this thread treats subnormal numbers as zero."""
    return math.ldexp(1.0, -1050) * 1.0 == 0.0


def find_compiler() -> list[str]:
    """Return the command of the C++ compiler: `CXX` if set, else the first of `COMPILERS` on PATH.

    Raises:
        BuildError: There is none, or `CXX` cannot be split into words.
    """
    try:
        chosen = shlex.split(os.environ.get("CXX", ""))
    except ValueError as error:
        raise BuildError(f"CXX is not a command: {error}: {os.environ['CXX']}") from None
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
    common = [*IEEE, "-std=c++17", "-shared", "-fPIC", "-pthread", "-fvisibility=hidden", "-ffp-contract=fast"]
    common += ["-fno-math-errno", "-fno-trapping-math"]  # nothing reads errno or the floating-point exception flags
    sanitizers = os.environ.get("MFBENCH_SANITIZE")
    if sanitizers:
        common += ["-O1", "-g", f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"]
    else:
        common += ["-O3", "-fno-sanitize=all"]  # one in CXX would end a process that was not started with its runtime
    if "GenuineIntel" in cpu_identity():  # such a line bypasses L2 there, and leaves L1 before it is read
        common += ["-DRATINGS_LOCALITY=2"]
    native = "-march=native" if platform.machine().lower() in ("x86_64", "amd64", "i686") else "-mcpu=native"
    return [[*common, native], common]


def _compile(compiler: list[str], flags: list[str], key: str) -> Path:
    """Compile to a temporary file and rename it, so that several processes may build at once. Return the new name."""
    folder = cache_folder()
    with tempfile.NamedTemporaryFile(dir=folder, prefix=f"fused-{key}", suffix=".tmp", delete=False) as file:
        temporary = Path(file.name)
    try:
        _run([*compiler, *flags, str(SOURCE), "-o", str(temporary)])
        library = folder / f"fused-{key}-{_digest(temporary)}.so"
        os.replace(temporary, library)
    finally:
        temporary.unlink(missing_ok=True)
    return library


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
    wanted = ("vendor_id", "model name", "flags", "Features", "CPU part", "CPU implementer")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))
