"""Read and set the core that the calling thread runs on.

Cores of one machine differ: a virtual core shares its physical one with another guest, a laptop has fast and slow
cores. Two like providers on different cores can differ by 10 % for seconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys


def current() -> int | None:
    """Return the number of the core; None where the system does not report it."""
    if sys.platform != "linux":
        return None
    core = ctypes.CDLL(None).sched_getcpu()
    return core if core >= 0 else None


def migrate_to(core: int) -> None:
    """Move the thread to a core if it may run there, without pinning it: it can leave at any time."""
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError):  # a sandbox may forbid it
        allowed = os.sched_getaffinity(0)
        if core in allowed and len(allowed) > 1:
            os.sched_setaffinity(0, {core})
            os.sched_setaffinity(0, allowed)
