"""Tables in a terminal: colours and width."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
from pathlib import Path

import pytest

from tests.mfbench.cli_runner import command
from tests.mfbench.report.synthetic import suite, write

COLOUR = re.compile(r"\x1b\[[0-9;]*m")


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
