"""How commands end and what they print: --quiet, --verbose, interruption, output that cannot be written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from torch.distributed import TCPStore

from mfbench.installation import ROOT
from tests.mfbench.cli_runner import command, mfbench_here
from tests.mfbench.report.synthetic import suite, write

ANSWER_S = 1.0  # longest time from Ctrl-C to the end of a command
TRIES = 3  # the best counts, as other programs may delay any one of them


def test_quiet_leaves_out_notes_but_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    path = write(tmp_path / "r.jsonl", suite())
    with path.open("a") as file:
        file.write("torn")
    arguments = ["compare", path, path]
    assert mfbench_here(monkeypatch, *arguments) == 0
    out, err = capsys.readouterr()
    assert "the last line is torn" in err
    assert "speed-up over the base" in out
    assert mfbench_here(monkeypatch, *arguments, "--quiet") == 0
    out, err = capsys.readouterr()
    assert "8 same" in out
    assert "speed-up over the base" not in out
    assert err == ""
    assert mfbench_here(monkeypatch, "compare", path, tmp_path / "none", "-q") == 2
    assert "cannot be read" in capsys.readouterr().err


def test_verbose_says_where_an_error_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    assert mfbench_here(monkeypatch, "compare", tmp_path / "none", tmp_path / "none", "-v") == 2
    assert "Traceback" in capsys.readouterr().err
    assert mfbench_here(monkeypatch, "compare", tmp_path / "none", tmp_path / "none") == 2
    assert "Traceback" not in capsys.readouterr().err


def test_an_interrupted_command_has_exit_code_130(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Ctrl-C, Click raises an exception of its own, which is a RuntimeError."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("mfbench.commands.inspect.command", interrupted)
    monkeypatch.setattr("mfbench.shell._leave_at_once", sys.exit)
    assert mfbench_here(monkeypatch, "inspect") == 130


def interrupted_s(folder: Path) -> float:
    """Seconds from Ctrl-C in the middle of timing to the end of the command."""
    arguments = command("run", "--size", "200x300", "--budget", "60", "--out", "r.jsonl", "--verbose")
    with subprocess.Popen(arguments, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if "timing" in line:
                break
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        start = time.perf_counter()
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    return time.perf_counter() - start


def test_ctrl_c_is_answered_at_once(tmp_path: Path) -> None:
    assert any(interrupted_s(tmp_path) < ANSWER_S for _ in range(TRIES))


def test_an_interrupted_import_ends_as_any_interruption(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("print('importing', flush=True)\nimport time\ntime.sleep(60)\n")
    settings = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    with subprocess.Popen(command("verify"), env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"importing\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30)[1] == b""
    assert process.returncode == 130


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    "arguments",
    [
        ("compare", "r.jsonl", "r.jsonl", "--json"),
        pytest.param(("compare", "r.jsonl", "r.jsonl"), marks=pytest.mark.slow),
        pytest.param(("report", "r.jsonl", "--out", "-"), marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_output_that_cannot_be_written_is_no_verdict(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    write(tmp_path / "r.jsonl", suite())
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command(*arguments), cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr.startswith("mfbench: cannot write")
    assert done.stderr.count("\n") == 1


def test_a_reader_that_has_left_is_no_error_message(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", suite())
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command("compare", path, path), stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


@pytest.mark.parametrize("arguments", [("list",), ("doctor",), ("compare", "a.jsonl", "b.jsonl")])
def test_a_removed_current_folder_is_named(tmp_path: Path, monkeypatch, capsys, arguments) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert mfbench_here(monkeypatch, *arguments) == 2
    assert capsys.readouterr().err == (
        "mfbench: the current folder cannot be read: No such file or directory [unreadable-file]\n"
    )


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs the limits of Linux")
@pytest.mark.parametrize(
    "arguments",
    [("compare", "big", "big"), ("report", "big", "--out", "page.html"), ("run", "--resume", "--out", "big")],
)
def test_a_file_beyond_the_memory_limit_is_one_line(tmp_path: Path, monkeypatch, capsys, arguments) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "big").open("wb") as file:
        file.truncate(1 << 40)  # no byte of it is on the disk
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + (8 << 30), before[1]))
    try:
        assert mfbench_here(monkeypatch, *arguments) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    err = capsys.readouterr().err
    assert err.endswith("big: cannot be read: it does not fit into memory [out-of-memory]\n")
    assert "Traceback" not in err


def test_running_out_of_memory_elsewhere_is_one_line(monkeypatch, capsys) -> None:
    from mfbench.commands import doctor

    def exhausted(*_: object) -> int:
        raise MemoryError

    monkeypatch.setattr(doctor, "doctor", exhausted)
    assert mfbench_here(monkeypatch, "doctor") == 2
    assert capsys.readouterr().err.endswith("out of memory, or over this process's limit [out-of-memory]\n")


def test_a_tensor_too_large_for_the_machine_is_one_line(monkeypatch, capsys) -> None:
    assert mfbench_here(monkeypatch, "train", "--size", "1000000x1000000", "--epochs", "2") == 2
    err = capsys.readouterr().err
    assert err == "mfbench: out of memory: the problem is too large for this machine [out-of-memory]\n"


def test_processes_of_torchrun_print_an_error_once(tmp_path: Path, monkeypatch, capsys) -> None:
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    settings = {"TORCHELASTIC_USE_AGENT_STORE": "True", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    for name, value in (settings | {"MASTER_PORT": str(store.port)}).items():
        monkeypatch.setenv(name, value)

    def printed(name: str) -> str:
        assert mfbench_here(monkeypatch, "compare", tmp_path / name, tmp_path / name) == 2
        return capsys.readouterr().err

    assert [printed("a").count("cannot be read") for _ in range(3)] == [1, 0, 0]
    assert "b" in printed("b")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert "cannot be read" in printed("a")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert "cannot be read" in printed("a")


def test_without_the_store_of_torchrun_each_process_prints_its_error(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("mfbench.shell.STORE_S", 0.1)
    for port in ("no port", "1"):
        monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        monkeypatch.setenv("MASTER_PORT", port)
        assert mfbench_here(monkeypatch, "compare", tmp_path, tmp_path) == 2
        assert "mfbench: " in capsys.readouterr().err


def test_no_folder_for_temporary_files_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """As on a full disk, where Python finds none that takes a file."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc"])
    options = ("--size", "9x9", "--provider", "autograd", "--out", tmp_path / "r.jsonl")
    assert mfbench_here(monkeypatch, "run", *options) == 2
    err = capsys.readouterr().err
    assert err.endswith("in ['/proc']; set TMPDIR to a folder that can be written [unwritable-file]\n")
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("run_id", "printed"), [("", "tidied up\n"), ("1", "")])
def test_a_process_of_torchrun_does_not_tidy_up(run_id: str, printed: str) -> None:
    """There, a thread of gloo that releases a tensor meanwhile would abort it."""
    code = "import atexit; atexit.register(print, 'tidied up'); import mfbench.__main__"
    environment = {key: value for key, value in os.environ.items() if key != "TORCHELASTIC_RUN_ID"}
    environment |= {"TORCHELASTIC_RUN_ID": run_id} if run_id else {}
    done = subprocess.run([sys.executable, "-c", code, "list"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(printed)
    assert ("tidied up" in done.stdout) == bool(printed)
    assert "synthetic" in done.stdout
