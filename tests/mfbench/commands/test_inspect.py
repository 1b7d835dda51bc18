"""`mfbench inspect`: table, JSON, comparison, interruption and errors."""

import json
import signal
import subprocess
import time

import psutil
import pytest

from tests.mfbench.cli_runner import command, mfbench, mfbench_here

pytest.importorskip("triton", reason="Triton is not installed")
from kernels.gpu.tiles import Tile
from tests.mfbench.inspect.configurations import with_tile


@pytest.mark.slow
def test_command(tmp_path):
    """The table, the document, and a comparison of the document with a changed one."""
    options = ["inspect", "--target", "sm_80", "--precision", "tf32,ieee", "--jobs", "1"]
    printed = mfbench(*options, cwd=tmp_path)
    assert printed.returncode == 0, printed.stderr
    assert "2 builds are clean, 0 are not" in printed.stdout
    assert "Modelled" in printed.stdout
    assert "sm_80: every instruction of its builds is one that the tests execute." in printed.stdout
    assert all(len(line) <= 80 for line in printed.stdout.splitlines())
    document = json.loads(mfbench(*options, "--json", cwd=tmp_path).stdout)
    before = document["builds"][0]
    before["registers"] += 7
    other = tmp_path / "before.json"
    other.write_text(json.dumps(document))
    compared = mfbench(*options, "--compare", other, cwd=tmp_path)
    assert compared.returncode == 0
    assert "1 of 2 builds changed" in compared.stdout
    assert f"registers {before['registers']} → {before['registers'] - 7}\n" in compared.stdout


@pytest.mark.slow
def test_ctrl_c_ends_what_compiles(tmp_path):
    options = ["inspect", "--target", "sm_80,sm_90", "--rank", "8,256", "--jobs", "2"]
    process = subprocess.Popen(command(*options), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end, compiling = time.monotonic() + 60, []
    while len(compiling) < 3:  # two processes, and one that watches over what they share
        assert time.monotonic() < end
        time.sleep(0.1)
        compiling = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    _, left = psutil.wait_procs(compiling, timeout=10)
    assert left == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target", "sm_75"], "--target: expected names of sm_80, "),
        (["--rank", "0"], "--rank: expected whole numbers from 1 to 1048576, got '0'"),
        (["--compare", "missing.json"], "missing.json: No such file"),
        (["--compare", __file__], "expected the output of `mfbench inspect --json`"),
    ],
)
def test_usage_errors(options, message, monkeypatch, capsys):
    assert mfbench_here(monkeypatch, "inspect", *options) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_shipped_build_that_fails_is_exit_code_1(monkeypatch, capsys):
    from mfbench.commands import inspect

    with_tile(monkeypatch, "sm_80", "ieee", Tile(128, 64, 4))
    chosen = {"target": ["sm_80"], "rank": None, "precision": ["ieee"], "encoding": None, "mode": None}
    assert inspect.command(chosen, False, 1, None, as_json=False) == 1
    assert "failed: sm_80 30 ieee float32+uint8 fast: fused_step spills" in capsys.readouterr().out


def test_instructions_that_no_test_executes_are_listed_by_target():
    from mfbench.commands import inspect
    from mfbench.inspect.document import Build

    def build(target: str, unexecuted: list[str] | None) -> Build:
        return Build.model_construct(
            target=target, rank=30, precision="tf32", encoding="float32+uint8", mode="fast", unexecuted=unexecuted
        )

    builds = [
        build("gfx942", None), build("sm_100", ["tcgen05.mma", "elect.sync"]), build("sm_100", []), build("sm_80", []),
    ]  # fmt: skip
    assert list(inspect.executed(builds)) == [
        "sm_80: every instruction of its builds is one that the tests execute.",
        "sm_100: no test executes elect.sync, tcgen05.mma, in 1 of 2 builds.",
        "gfx942: no test executes its machine code.",
    ]


def test_the_other_launches_are_summarised_by_target():
    from mfbench.commands import inspect
    from mfbench.inspect.document import Build
    from tests.mfbench.report.test_page import BUILD, LAUNCHES

    prepare, step, finish = LAUNCHES
    wide = [prepare | {"registers": 72}, step, finish | {"stack_bytes": 8, "shared_bytes": 2048}]
    loss = BUILD | {"mode": "sse", "launches": [prepare | {"registers": 90}, step]}
    builds = map(Build.model_validate, [BUILD, BUILD | {"launches": wide}, loss, BUILD | {"target": "sm_80"}])
    assert list(inspect.beside([*builds, Build.model_validate(BUILD | {"target": "gfx942", "launches": []})])) == [
        "sm_80: the other launches take at most: prepare 40 registers, 0 bytes of stack, 512 of shared memory; "
        "finish 56 registers, 0 bytes of stack, 256 of shared memory.",
        "sm_90: the other launches take at most: prepare 90 registers, 0 bytes of stack, 512 of shared memory; "
        "finish 56 registers, 8 bytes of stack, 2048 of shared memory.",
    ]
