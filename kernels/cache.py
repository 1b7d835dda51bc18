"""The cache folder for what is computed once per machine: compiled libraries and tuned tiles.

It is `$MFBENCH_CACHE`, else `$XDG_CACHE_HOME/mfbench`, else `~/.cache/mfbench`. Where that cannot be written, or is
mounted `noexec`, so that no library in it can be loaded, it is a folder of this user among the temporary files.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
TEMPORARY_FOLDERS = ("/var/tmp", "/dev/shm")  # tried after the configured one


@cache
def cache_folder() -> Path:
    """Return the first suitable folder: the configured one, else one of this user among the temporary files.

    Raises:
        OSError: No folder can be written and hold libraries.
    """
    tried = []
    for folder, private in _candidates():
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700 if private else 0o777)
            if (not private or _is_private(folder)) and _holds_libraries(folder):
                return folder
        except OSError:
            pass
        tried.append(str(folder))
    raise OSError(f"no folder that can be written and hold libraries (tried {', '.join(tried)}); set MFBENCH_CACHE")


def _candidates() -> Iterator[tuple[Path, bool]]:
    """Yield folders, and for each whether other users could have created it."""
    chosen = os.environ.get("MFBENCH_CACHE")
    base = os.path.expanduser(os.environ.get("XDG_CACHE_HOME", ""))
    if not os.path.isabs(base):  # not set, or invalid by the XDG specification
        base = os.path.expanduser("~/.cache")
    configured = os.path.expanduser(chosen or os.path.join(base, "mfbench"))
    if not configured.startswith("~") and (chosen or os.path.isabs(configured)):  # `~`: a user without a home folder
        yield Path(configured).absolute(), False
    user = os.getuid() if hasattr(os, "getuid") else "user"  # temporary files of Windows are each user's own
    for temporary in dict.fromkeys([tempfile.gettempdir(), *TEMPORARY_FOLDERS]):
        if os.path.isdir(temporary):
            yield Path(temporary) / f"mfbench-cache-{user}", True


def _is_private(folder: Path) -> bool:
    """Return whether this user owns the folder and nobody else can write to it; a symbolic link never is private."""
    status = folder.lstat()
    return stat.S_ISDIR(status.st_mode) and (
        not hasattr(os, "getuid") or (status.st_uid == os.getuid() and not status.st_mode & OTHERS_WRITE)
    )


def _holds_libraries(folder: Path) -> bool:
    """Return whether files can be written there and mapped as code.

    Raises:
        OSError: They cannot be written.
    """
    with tempfile.TemporaryFile(dir=folder):
        return not hasattr(os, "ST_NOEXEC") or not os.statvfs(folder).f_flag & os.ST_NOEXEC
