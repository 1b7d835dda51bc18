"""The core on which the calling thread runs.

The cores of one machine are not alike: a virtual one shares its core with another guest for as long as that one
computes, a laptop has fast and slow ones. Two like providers on two of them would differ by 10 % for seconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys


def current() -> int | None:
    """Its number; None where the system does not tell."""
    if sys.platform != "linux":
        return None
    core = ctypes.CDLL(None).sched_getcpu()
    return core if core >= 0 else None


def move_to(core: int) -> None:
    """Go on there, where the thread may run there; it is free to leave at any time."""
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError):  # a sandbox may forbid it
        allowed = os.sched_getaffinity(0)
        if core in allowed and len(allowed) > 1:
            os.sched_setaffinity(0, {core})
            os.sched_setaffinity(0, allowed)
