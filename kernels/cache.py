"""The cache folder for what is computed once per machine: compiled libraries and tuned tiles.

It is `$MFBENCH_CACHE`, else `$XDG_CACHE_HOME/mfbench`, else `~/.cache/mfbench`.
"""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path


@cache
def cache_folder() -> Path:
    """Return the configured folder if it is writable, else a temporary folder for this process."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = Path(os.environ.get("MFBENCH_CACHE") or os.path.join(base, "mfbench"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return Path(tempfile.mkdtemp(prefix="mfbench-"))
