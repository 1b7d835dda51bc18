"""Run git on a given folder, whatever repository a hook's environment names."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

# Where a repository is and what is in it, as `git rev-parse --local-env-vars` lists it; git sets these for its hooks.
LOCATION = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
)


def git(folder: Path, *arguments: str, timeout_s: float | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run git in a folder, with messages in English.

    Raises:
        OSError: git cannot be run.
        subprocess.TimeoutExpired: it takes longer than `timeout_s`.
    """
    environment = {name: value for name, value in os.environ.items() if name not in LOCATION} | {"LC_ALL": "C"}
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, check=False, timeout=timeout_s, env=environment)
