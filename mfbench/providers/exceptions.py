"""Summarise an exception in one line: what, and where in the user's code."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

from mfbench.installation import ROOT

LONGEST = 300  # most characters of a line, as a compiler's command line says little
LIBRARIES = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
OTHERS = tuple(f"{folder}/" for folder in (*(ROOT / name for name in ("kernels", "mfbench", "reference")), *LIBRARIES))


def reason(error: BaseException) -> str:
    """Return an error's first line, the most informative other line, and the place in the user's code."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    parts = [_cut(": ".join([type(error).__name__, *lines[:1]]))]
    by_compiler = (line for line in lines[1:] if " error: " in line)
    by_python = (line for line in reversed(lines[1:]) if "Error" in line)
    if telling := next(by_compiler, "") or next(by_python, ""):
        parts.append(_cut(telling))
    return " … ".join(parts) + _where(error)


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith((*OTHERS, "<"))]
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""


def _cut(line: str) -> str:
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}…"
