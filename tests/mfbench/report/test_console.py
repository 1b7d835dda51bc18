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


@pytest.fixture
def compared(tmp_path: Path) -> list[str]:
    base, new = write(tmp_path / "a.jsonl", suite(0)), write(tmp_path / "b.jsonl", suite(1, factor=1.5))
    return command("compare", base, new)


def test_colours_are_for_terminals_and_can_be_turned_off(compared: list[str], tmp_path: Path) -> None:
    assert COLOUR.search(in_terminal(compared, tmp_path))
    assert not re.search(r"\x1b\[(?:\d+;)*(?:3|4|9)\d", in_terminal(compared, tmp_path, NO_COLOR="1"))
    piped = subprocess.run(compared, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "slower" in piped.stdout
    assert "\x1b" not in piped.stdout + piped.stderr


def test_80_columns_are_enough(compared: list[str], tmp_path: Path) -> None:
    lines = COLOUR.sub("", in_terminal(compared, tmp_path)).replace("\r", "").splitlines()
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)
