"""Running the command line as a user does, in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mfbench.cli import main

TINY = """
description = "small enough for tests"
providers = ["fused", "autograd"]
[[case]]
size = ["30x40", "41x29", "64x64"]
rank = 5
"""


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "mfbench", *map(str, arguments)]


def mfbench(*arguments: object, cwd: Path, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=cwd, capture_output=True, text=True, timeout=timeout, check=False)


def tiny_suite(folder: Path) -> Path:
    path = folder / "tiny.toml"
    path.write_text(TINY)
    return path


def mfbench_here(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The exit code of a command run in this process, which saves the seconds that importing takes."""
    monkeypatch.setattr(sys, "argv", ["mfbench", *map(str, arguments)])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)
