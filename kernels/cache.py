"""The folder of what is found out once for a machine: compiled libraries, tuned tiles.

`MFBENCH_CACHE` names it; else it is `$XDG_CACHE_HOME/mfbench`, else `~/.cache/mfbench`.
"""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path


@cache
def cache_folder() -> Path:
    """The first folder that can be written: as configured, else one of this process's own."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = Path(os.environ.get("MFBENCH_CACHE") or os.path.join(base, "mfbench"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return Path(tempfile.mkdtemp(prefix="mfbench-"))
