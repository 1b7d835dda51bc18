"""What a user expects of any command: colours and width, volume, completion, interruption."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from kernels.backends import implementation
from mfbench import log
from mfbench.cli import cli
from mfbench.providers.revision import ROOT
from tests.mfbench.cli_runner import command, mfbench_here
from tests.mfbench.report.synthetic import suite, write

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
ANSWER_S = 1.0
TRIES = 3  # the best counts: other programs may hold any one of them up


def in_terminal(arguments: list[str], cwd: Path, **environment: str) -> str:
    """What a command prints in a terminal of 80 columns."""
    leader, follower = pty.openpty()
    settings = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
    settings |= {"TERM": "xterm-256color", "COLUMNS": "80", **environment}
    with subprocess.Popen(arguments, cwd=cwd, stdout=follower, stderr=follower, env=settings) as process:
        os.close(follower)
        printed = b""
        while select.select([leader], [], [], 120)[0]:
            try:
                part = os.read(leader, 65536)
            except OSError:  # the other end was closed
                break
            if not part:
                break
            printed += part
        process.wait()
    os.close(leader)
    return printed.decode()


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A command that prints a table with colours and a line of errors."""
    folder = tmp_path_factory.mktemp("compared")
    base, new = write(folder / "a.jsonl", suite(0)), write(folder / "b.jsonl", suite(1, factor=1.5))
    return command("compare", base, new)


@pytest.fixture(scope="module")
def shown(compared: list[str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """What that command prints in a terminal."""
    return in_terminal(compared, tmp_path_factory.mktemp("shown"))


def test_colours_are_for_terminals_and_can_be_turned_off(shown: str, compared: list[str], tmp_path: Path) -> None:
    assert COLOUR.search(shown)
    assert not re.search(r"\x1b\[(?:\d+;)*(?:3|4|9)\d", in_terminal(compared, tmp_path, NO_COLOR="1"))
    piped = subprocess.run(compared, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "slower" in piped.stdout
    assert "\x1b" not in piped.stdout + piped.stderr


def test_80_columns_are_enough(shown: str) -> None:
    lines = COLOUR.sub("", shown).replace("\r", "").splitlines()
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)


def test_quiet_leaves_out_notes_but_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    path = write(tmp_path / "r.jsonl", suite())
    with path.open("a") as file:
        file.write("torn")
    arguments = ["compare", path, path]
    assert mfbench_here(monkeypatch, *arguments) == 0
    out, err = capsys.readouterr()
    assert "the last line is torn" in err
    assert "how many times as fast" in out
    assert mfbench_here(monkeypatch, *arguments, "--quiet") == 0
    out, err = capsys.readouterr()
    assert "8 same" in out
    assert "how many times as fast" not in out
    assert err == ""
    assert mfbench_here(monkeypatch, "compare", path, tmp_path / "none", "-q") == 2
    assert "cannot be read" in capsys.readouterr().err


def test_verbose_says_where_an_error_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    assert mfbench_here(monkeypatch, "compare", tmp_path / "none", tmp_path / "none", "-v") == 2
    assert "Traceback" in capsys.readouterr().err
    assert mfbench_here(monkeypatch, "compare", tmp_path / "none", tmp_path / "none") == 2
    assert "Traceback" not in capsys.readouterr().err


def test_verbose_says_each_step(capsys) -> None:
    log.set_level(1)
    log.step("timing")
    log.set_level(0)
    log.step("gate")
    assert capsys.readouterr().err == "mfbench: timing\n"


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_help_tells_exit_codes_and_volume(name: str) -> None:
    text = cli.commands[name].get_help(click.Context(cli.commands[name], info_name=name))
    assert "Exit code: 0" in text
    assert "--quiet" in text
    assert "--verbose" in text


@pytest.mark.parametrize(("arguments", "expected"), [
    (["rum"], "Did you mean 'run'"), (["run", "--sute", "x"], "--suite"),
    (["run", "--suite", "quik"], "did you mean 'quick'"), (["run", "--provider", "fusd"], "did you mean 'fused'"),
    (["run", "--data", "movilens", "--size", "3x4"], "did you mean 'movielens'"),
    (["train", "--data", "movilens"], "did you mean 'movielens'"),
])  # fmt: skip
def test_the_nearest_name_is_suggested(arguments, expected, monkeypatch: pytest.MonkeyPatch, capsys, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    assert mfbench_here(monkeypatch, *arguments) == 2
    assert expected in capsys.readouterr().err


def test_the_nearest_backend_is_suggested() -> None:
    with pytest.raises(ValueError, match="did you mean 'native'"):
        implementation("nativ")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    code = "import sys; sys.argv = ['mfbench']; from mfbench.cli import main; main()"
    settings = os.environ | {"_MFBENCH_COMPLETE": f"{shell}_source"}
    try:
        script = subprocess.run(
            [sys.executable, "-c", code], env=settings, capture_output=True, text=True, check=True
        ).stdout  # fmt: skip
    except subprocess.CalledProcessError as error:
        if "Bash" in error.stderr:
            pytest.skip("needs a Bash that click can complete for")
        raise
    assert "_MFBENCH_COMPLETE" in script


def interrupted_s(folder: Path) -> float:
    """Seconds from Ctrl-C in the middle of timing to the end of the command."""
    arguments = command("run", "--size", "200x300", "--budget", "60", "--out", "r.jsonl", "--verbose")
    with subprocess.Popen(arguments, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if line.rstrip().endswith("timing"):
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


def completed(*words: str) -> list[str]:
    """What a shell is told, in a process that may not import torch."""
    code = "import sys; sys.argv = ['mfbench']; sys.modules['torch'] = None; from mfbench.cli import main; main()"
    settings = os.environ | {"_MFBENCH_COMPLETE": "zsh_complete", "COMP_WORDS": " ".join(("mfbench", *words)),
                             "COMP_CWORD": str(len(words))}  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], env=settings, capture_output=True, text=True, check=False)
    return done.stdout.split("\n")[1::3]


@pytest.mark.parametrize(("words", "expected"), [
    (("run", "--suite", "s"), {"seed", "square"}), (("run", "--device", "c"), {"cpu", "cuda"}), (("ins",), {"inspect"}),
])  # fmt: skip
def test_values_are_completed_without_torch(words: tuple[str, ...], expected: set[str]) -> None:
    assert set(completed(*words)) == expected


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


def test_an_interrupted_import_ends_as_any_interruption(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("print('importing', flush=True)\nimport time\ntime.sleep(60)\n")
    settings = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    with subprocess.Popen(command("verify"), env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"importing\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30)[1] == b""
    assert process.returncode == 130
