"""Build the CPU kernel: cache, error messages, compiler warnings, vector widths, address and undefined sanitizers."""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kernels import backends, mf_loss_and_grads
from kernels.cpu import build, launch
from tests.problems import assert_right, draw_inputs

needs_kernel = pytest.mark.skipif(
    not backends()["native"].available, reason=backends()["native"].reason or "the kernel is available"
)
WARNINGS = ("-Wall", "-Wextra", "-Wpedantic", "-Werror")
# Clang warns that `-fno-trapping-math` overrides what another option implies; GCC does not know the warning. GCC 12
# takes its own AVX-512 intrinsics for uses of what is uninitialised (its bug 105593)
SILENCED = (
    "-Wno-overriding-t-option", "-Wno-overriding-option", "-Wno-unknown-warning-option", "-Wno-maybe-uninitialized",
    "-Wno-uninitialized",
)  # fmt: skip


def run_python(code: str, before: tuple[str, ...] = (), **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*before, sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True, text=True, timeout=280, env={**os.environ, **environment},
    )  # fmt: skip


def runtime_library(compiler: list[str], name: str) -> str | None:
    """Return the path of the compiler's library `lib<name>.so`, or None if it has none."""
    path = subprocess.check_output([*compiler, f"-print-file-name=lib{name}.so"], text=True).strip()
    return path if Path(path).is_absolute() else None


def write_script(path: Path, lines: str) -> Path:
    path.write_text(f"#!/bin/sh\n{lines}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def fresh_cache(tmp_path, monkeypatch):
    """Provide an empty cache and forget the library that this process has loaded."""
    monkeypatch.setenv("MFBENCH_CACHE", str(tmp_path / "cache"))
    cached = (build.load_kernel, build.cache_folder, launch._reason)
    for function in cached:
        function.cache_clear()
    yield tmp_path / "cache"
    for function in cached:
        function.cache_clear()


@pytest.fixture(scope="session")
def built_library() -> Path:
    """The library that this process has loaded."""
    return Path(build.load_kernel()._name)


@pytest.fixture
def compiler_script(built_library, tmp_path, monkeypatch):
    """Set CXX to a script that logs each build; instead of compiling, it copies the library that is there already."""
    log = tmp_path / "log"
    script = write_script(
        tmp_path / "cxx",
        f'[ "$1" = --version ] && exec echo copier 1.0\n'
        f'echo built >> {log}\nfor last; do :; done\ncp {built_library} "$last.part"\nmv "$last.part" "$last"',
    )
    monkeypatch.setenv("CXX", str(script))
    return script, log


@needs_kernel
def test_a_library_is_built_once_and_again_for_another_cpu_source_or_compiler(
    fresh_cache, compiler_script, monkeypatch
):
    script, log = compiler_script
    for _ in range(2):
        build.load_kernel.cache_clear()
        build.load_kernel()
    assert log.read_text().count("built") == 1
    assert [path.suffix for path in fresh_cache.iterdir()] == [".so"]  # no temporary file is left

    monkeypatch.setattr(build, "cpu_identity", lambda: "another CPU")
    build.load_kernel.cache_clear()
    build.load_kernel()
    assert log.read_text().count("built") == 2

    script.write_text(script.read_text().replace("copier 1.0", "copier 1.1"))
    build.load_kernel.cache_clear()
    build.load_kernel()
    assert log.read_text().count("built") == 3
    assert len(list(fresh_cache.iterdir())) == 3


@needs_kernel
@pytest.mark.parametrize("kept", [*(pytest.param(kept, marks=pytest.mark.slow) for kept in (0, 9, 0.999)), 0.3])
def test_a_library_cut_short_is_built_again(fresh_cache, compiler_script, built_library, kept):
    whole = built_library.read_bytes()
    load = "from kernels.cpu import build; build.load_kernel().mf_release()"
    assert run_python(load).returncode == 0
    (library,) = fresh_cache.iterdir()
    library.write_bytes(whole[: kept if kept > 1 else int(kept * len(whole))])
    assert run_python(load).returncode == 0  # -7 is SIGBUS
    assert library.read_bytes() == whole
    assert compiler_script[1].read_text().count("built") == 2


@needs_kernel
def test_a_library_with_a_changed_byte_is_built_again(fresh_cache, compiler_script, built_library, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(build, "_load", lambda library: library)  # a process loads a library of one name once
        library = build.load_kernel()
    changed = bytearray(library.read_bytes())
    changed[len(changed) // 2] ^= 1
    library.write_bytes(changed)
    build.load_kernel.cache_clear()
    assert build.load_kernel()._name == str(library)
    assert library.read_bytes() == built_library.read_bytes()


def arithmetic(command: list[str], folder: Path) -> str:
    """Compile the probe alone; return whether it finds IEEE arithmetic, and whether subnormal numbers survive it."""
    source, library = folder / "probe.cpp", folder / "probe.so"
    probe = re.search(r"EXPORT (int mf_is_ieee.*?\n}\n)", build.SOURCE.read_text(), re.DOTALL)[1]
    source.write_text(f'extern "C" __attribute__((visibility("default"))) {probe}')
    subprocess.run([*command, str(source), "-o", str(library)], check=True, capture_output=True)
    return run_python(f"""
        import ctypes, math
        probe = ctypes.CDLL("{library}").mf_is_ieee
        probe.argtypes = [ctypes.c_double] * 3
        print(bool(probe(1e30, 1.0, math.nan)), math.ldexp(1.0, -1050) * 1.0 != 0.0)
    """).stdout


@needs_kernel
@pytest.mark.skipif(platform.machine() != "x86_64", reason="reads x86 assembly")
@pytest.mark.parametrize(
    ("vendor", "vectors", "hint"),
    [
        ("GenuineIntel", "-mno-avx512f", "prefetcht1"),
        ("AuthenticAMD", "-mno-avx512f", "prefetchnta"),
        ("AuthenticAMD", "-mavx512f", "prefetcht1"),
    ],
)
def test_ratings_are_prefetched_to_where_the_processor_keeps_them(vendor, vectors, hint, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "cpu_identity", lambda: f"vendor_id\t: {vendor}")
    source = tmp_path / "prefetch.cpp"
    source.write_text(
        '#include "reader.h"\n'
        "void prefetch(const mf::MatrixReader<float, 96> &matrix) { matrix.lines({1, 2}).prefetch(3); }\n"
    )
    command = [*build.find_compiler(), *build.flag_sets()[0], vectors, f"-I{build.SOURCE.parent}", "-S", "-o-"]
    assert set(re.findall(r"prefetch\w+(?=\s+[^:]*\()", build._run([*command, str(source)]))) == {hint}


@needs_kernel
@pytest.mark.parametrize(
    "option", ["-ffast-math", "-Ofast", "-funsafe-math-optimizations", "-fassociative-math -fno-signed-zeros"]
)
def test_no_option_in_cxx_changes_the_arithmetic(option, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", f"{shlex.join(build.find_compiler())} {option}")
    assert arithmetic([*build.find_compiler(), *build.flag_sets()[0]], tmp_path) == "True True\n"


@needs_kernel
@pytest.mark.parametrize(
    "options",
    ["-ffast-math", "-Ofast -ffast-math", "-ffinite-math-only", "-fassociative-math -fno-signed-zeros"],
)
def test_the_probe_sees_what_is_appended(options, tmp_path):
    command = [*build.find_compiler(), *build.flag_sets()[0], *options.split()]
    assert arithmetic(command, tmp_path).startswith("False ")


@needs_kernel
@pytest.mark.compilers
def test_a_compiler_that_appends_fast_math_is_refused(tmp_path):
    script = write_script(tmp_path / "cxx", f'exec {shlex.join(build.find_compiler())} "$@" -O1 -ffast-math')
    code = """
        import math
        from kernels import backends
        print(backends()["native"].reason, math.ldexp(1.0, -1050) * 1.0 != 0.0)
    """
    run = run_python(code, CXX=str(script), MFBENCH_CACHE=str(tmp_path / "cache"))
    assert "compiles with -ffast-math or the like, which changes results True" in run.stdout, run.stderr[-2000:]


@needs_kernel
@pytest.mark.parametrize("options", ["-fsanitize=address", "-fsanitize=undefined,thread -g", "-O0 -fno-inline"])
def test_a_compiler_with_other_options_is_used_without_its_sanitizers(options, tmp_path):
    """A library with one ends a process that did not start with its runtime."""
    command = [*build.find_compiler(), *options.split(), *build.flag_sets()[0]]
    assert arithmetic(command, tmp_path) == "True True\n"


@needs_kernel
@pytest.mark.parametrize("name", ["CXXFLAGS", "CFLAGS", "CPPFLAGS", "LDFLAGS"])
def test_flags_in_the_environment_change_nothing(name, monkeypatch, built_library):
    """Build systems read these, a compiler does not; so the library in the cache stays the right one."""
    monkeypatch.setenv(name, "-Ofast -ffast-math")
    build.load_kernel.cache_clear()
    assert Path(build.load_kernel()._name).name == built_library.name


@needs_kernel
@pytest.mark.parametrize("state", ["noexec", pytest.param("file", marks=pytest.mark.slow)])
def test_without_a_usable_cache_a_library_is_still_built_once(state, tmp_path, compiler_script):
    home, temporary = tmp_path / "home", tmp_path / "temporary"
    temporary.mkdir()
    if state == "file":
        home.touch()
        code = ""
    else:  # as `mount -o noexec` on the home folder would
        code = f"""
import os
class Flags:
    f_flag = os.ST_NOEXEC
statvfs = os.statvfs
os.statvfs = lambda path: Flags if str(path).startswith({str(home)!r}) else statvfs(path)
"""
    code += "from kernels.cpu import build; print(build.load_kernel()._name)"
    places = {"MFBENCH_CACHE": "", "XDG_CACHE_HOME": "", "HOME": str(home), "TMPDIR": str(temporary)}
    runs = [run_python(code, **places) for _ in range(2)]
    assert [run.returncode for run in runs] == [0, 0], runs[0].stderr
    assert len({run.stdout for run in runs}) == 1
    assert compiler_script[1].read_text().count("built") == 1
    (folder,) = temporary.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert len(list(folder.iterdir())) == 1


@needs_kernel
def test_processes_may_build_at_once(tmp_path, compiler_script):
    script, log = compiler_script
    script.write_text(script.read_text().replace("mv ", "sleep 2; mv "))  # long enough for both to begin
    code = "from kernels.cpu import build; print(build.load_kernel()._name)"
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda _: run_python(code, MFBENCH_CACHE=str(tmp_path / "cache")), range(2)))
    assert [run.returncode for run in runs] == [0, 0], runs[0].stderr
    assert len({run.stdout for run in runs}) == 1
    assert log.read_text().count("built") == 2
    assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (None, "CXX names a C++ compiler that does not exist: {cxx}"),
        ("exit 1", "exit status 1"),
        ('[ "$1" = --version ] && exit 0; echo "fused.cpp:1: error: no such thing" >&2; exit 1', "no such thing"),
        ('[ "$1" = --version ] && exit 0; for last; do :; done; echo junk > "$last"', "fused-"),
    ],
)
def test_the_reason_why_there_is_no_kernel(tmp_path, monkeypatch, fresh_cache, script, reason):
    cxx = tmp_path / "cxx"
    if script is not None:
        write_script(cxx, script)
    monkeypatch.setenv("CXX", str(cxx))
    inputs = draw_inputs(3, 4, 2)
    assert_right(inputs, mf_loss_and_grads(*inputs))  # "auto" falls back
    state = backends()["native"]
    assert not state.available
    with pytest.raises(RuntimeError) as refused:
        mf_loss_and_grads(*inputs, backend="native")
    for text in (state.reason, str(refused.value)):
        assert reason.format(cxx=cxx) in text


@pytest.mark.parametrize("cxx", ["g++ 'open", 'g++ "open', "g++ -O2\\", "/no/such/compiler", "''"])
def test_a_cxx_that_is_no_command_is_named(cxx, monkeypatch, fresh_cache):
    monkeypatch.setenv("CXX", cxx)
    reason = backends()["native"].reason
    assert reason.startswith("CXX ")
    assert "\n" not in reason


SHAPES = """
    import torch
    from kernels import encode_ratings, mf_loss_and_grads, mf_sse

    def check(m, n, rank, dtype, rating_dtype, mask_dtype, threads, transposed):
        torch.set_num_threads(threads)
        parameters = [torch.randn(shape, dtype=dtype) for shape in ((m, rank), (n, rank), (m, 1), (n,), ())]
        ratings, observed = (torch.rand(m, n) * 5).to(rating_dtype), torch.rand(m, n) < 0.6
        mask = None if mask_dtype is None else observed.to(mask_dtype)
        if mask is None and ratings.is_floating_point():
            ratings[~observed] = float("nan")
        if mask_dtype == torch.bool:
            encoded = encode_ratings(ratings.round(), observed)
            assert mf_loss_and_grads(*parameters, encoded, backend="native")[0].isfinite()
        if transposed:
            ratings, mask = ratings.T.contiguous().T, mask if mask is None else mask.T.contiguous().T
        native = mf_loss_and_grads(*parameters, ratings, mask, backend="native")
        tiled = mf_loss_and_grads(*parameters, ratings, mask, backend="torch")
        torch.testing.assert_close(native[0], tiled[0], rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(native[1], tiled[1], rtol=1e-3, atol=1e-2)
        mf_sse(*parameters, ratings, mask, backend="native")
        if mask is not None and not mask.is_floating_point():
            sparse = encode_ratings(ratings, mask, layout="sparse")
            raw = torch.sparse_csr_tensor(sparse.rows, sparse.columns.long(), ratings[mask != 0], (m, n))
            for entries in (sparse, raw):
                native = mf_loss_and_grads(*parameters, entries, backend="native")
                torch.testing.assert_close(native[0], tiled[0], rtol=1e-4, atol=1e-3)
                torch.testing.assert_close(native[1], tiled[1], rtol=1e-3, atol=1e-2)
                mf_sse(*parameters, entries, backend="native")

    def refuse(rows, columns, m=3, n=500):
        ratings = torch.sparse_csr_tensor(torch.tensor(rows), torch.tensor(columns), torch.ones(len(columns)), (m, n))
        parameters = [torch.ones(shape) for shape in ((m, 4), (n, 4), (m,), (n,), ())]
        try:
            mf_loss_and_grads(*parameters, ratings, backend="native")
        except ValueError as error:
            assert str(error).startswith("ratings: expected"), error
        else:
            raise AssertionError((rows, columns))

    for far in (500, 1 << 20, 1 << 40, -1, -(1 << 40)):
        refuse([0, 1, 2, 3], [0, far, 1])
        refuse([0, far, 2, 3], [0, 1, 2])
        refuse([0, 1, 2, far], [0, 1, 2])
        refuse([far, 1, 2, 3], [0, 1, 2])
        refuse([0, 3, 3, 3], [7, 7, far])
    torch.manual_seed(0)
    dtypes = [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.uint8, torch.int8]
    masks = [None, torch.bool, torch.uint8, torch.int16, torch.int32, torch.int64, torch.float16, torch.float64]
    sizes = [(1, 1), (1, 700), (700, 1), (6, 16), (7, 17), (97, 97), (200, 300), (301, 199)]
    for index, (m, n) in enumerate(sizes * 3):
        rank = [1, 2, 7, 8, 9, 11, 30, 33, 64, 66, 130][index % 11]
        for dtype in (torch.float32, torch.float64):
            rating_dtype, mask_dtype = dtypes[index % 6], masks[(index + index // 8) % 8]
            check(m, n, rank, dtype, rating_dtype, mask_dtype, threads=1 + index % 4, transposed=index % 3 == 0)
    print("clean")
"""


@needs_kernel
@pytest.mark.compilers
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the instruction sets are those of x86-64")
@pytest.mark.parametrize(
    ("processor", "needed"), [("x86-64", "sse2"), ("haswell", "avx2"), ("skylake-avx512", "avx512bw")]
)
def test_every_vector_width_that_this_cpu_has_gives_the_same(processor, needed):
    if needed not in build.cpu_identity().split():
        pytest.skip(f"this CPU has no {needed}")
    compiler = f'exec {shlex.join(build.find_compiler())} "$@" -O1 -march={processor}'
    script = write_script(build.cache_folder() / f"cxx-{processor}", compiler)  # of one name: its builds are kept
    run = run_python(SHAPES, CXX=str(script))
    assert run.stdout.strip() == "clean", run.stderr[-4000:]


@needs_kernel
@pytest.mark.compilers
@pytest.mark.skipif(sys.platform != "linux", reason="the sanitizers are preloaded as on Linux")
def test_address_and_undefined_behaviour_sanitizers_find_nothing():
    compiler = build.find_compiler()
    libraries = [runtime_library(compiler, name) for name in ("asan", "ubsan")]
    if None in libraries:
        pytest.skip("the compiler has no sanitizer libraries")
    run = run_python(
        SHAPES,
        MFBENCH_SANITIZE="address,undefined", LD_PRELOAD=" ".join(libraries), ASAN_OPTIONS="detect_leaks=0",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-4000:]
    assert run.stdout.strip() == "clean"


def test_call_struct_has_the_size_of_the_packed_arguments():
    asserted = re.search(r"static_assert\(sizeof\(Call\) == (\d+)", header("call.h"))
    assert launch.CALL.size == int(asserted[1])


def test_dtype_numbers_are_those_of_the_header():
    kinds = re.search(r"enum RatingKind { (.*) };", header("dtypes.h"))[1].lower().split(", ")
    numbers = {str(dtype).removeprefix("torch."): kind for dtype, kind in launch.RATING_KINDS.items()}
    assert {**numbers, "codes": launch.CODES} == {name: kind for kind, name in enumerate(kinds)}
    _, bits, *weights = re.search(r"enum MaskKind {\s+(.*?)\s+};", header("dtypes.h"), re.DOTALL)[1].split(",")
    assert bits.split() == ["BITS", "=", str(launch.BITS)]
    named = {name.strip().removesuffix("_WEIGHTS").lower(): kind for kind, name in enumerate(weights, launch.BITS + 1)}
    floats = {dtype: kind for dtype, kind in launch.MASK_KINDS.items() if dtype.is_floating_point}
    assert {str(dtype).removeprefix("torch."): kind for dtype, kind in floats.items()} == named
    assert all(kind == dtype.itemsize for dtype, kind in launch.MASK_KINDS.items() if dtype not in floats)


def header(name: str) -> str:
    return build.SOURCE.with_name(name).read_text()


@pytest.mark.compilers
@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_kernel_compiles_without_warnings(tmp_path, compiler):
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} on PATH")
    command = [
        compiler,
        *build.flag_sets()[0],
        *WARNINGS,
        *SILENCED,
        str(build.SOURCE),
        "-o",
        str(tmp_path / "kernel.so"),
    ]
    run = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert run.returncode == 0, run.stderr[-4000:]
