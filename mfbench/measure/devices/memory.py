"""Measure the peak memory of a call, and limit memory so that exhaustion raises an error."""

from __future__ import annotations

import contextlib
import ctypes
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from kernels.cpu import launch
from mfbench.problems.free_memory import free_memory

ALLOCATION_FAILED = re.compile("can't allocate memory|not enough memory")
HEADROOM = 0.05  # fraction of the free memory left to the rest of the system
OOM_SCORE = 500  # proc(5), of 1000: how much rather a worker is killed than the harness and other programs


def limit_to_free_memory(shared_bytes: int = 0) -> None:
    """Make allocations beyond the machine's free memory fail, instead of invoking the out-of-memory killer.

    Args:
        shared_bytes: of a mapping to come, whose pages exist already.
    """
    if sys.platform != "linux":
        return
    import resource

    data = int(_status("VmData") + (1 - HEADROOM) * free_memory()) + shared_bytes
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (data if hard < 0 else min(data, hard), hard))


def prefer_to_be_killed() -> None:
    """Make the out-of-memory killer choose this process before the harness, which records what happened."""
    with contextlib.suppress(OSError):  # not Linux, or no process file system
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))


@contextlib.contextmanager
def limited_to_free_memory() -> Iterator[None]:
    """Temporarily apply `limit_to_free_memory`, for a process that others use too."""
    if sys.platform != "linux":
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    limit_to_free_memory()
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def peak_of(call: Callable[[], Any], device: str) -> tuple[Any, int | None]:
    """Call a function and measure the most memory it held, in bytes, beyond what was held before.

    On a CPU this is the operating system's high-water mark of resident memory, on a GPU the PyTorch allocator's.

    Returns:
        The function's result, and the peak; None where the system keeps no such mark, as on macOS.
    """
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = call()
        torch.cuda.synchronize()
        return result, torch.cuda.max_memory_allocated() - before
    return_free_memory()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM
    except OSError:
        return call(), None
    before = _status("VmRSS")
    result = call()
    return result, max(0, _status("VmHWM") - before)


def page_faults() -> int:
    """Return how many minor page faults this process has had; 0 where the system does not report it."""
    if sys.platform == "win32":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def exhausted(error: BaseException) -> bool:
    """Return whether an error means that memory ran out; PyTorch's CPU allocator raises a RuntimeError."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or bool(ALLOCATION_FAILED.search(str(error)))


def return_free_memory() -> None:
    """Return cached memory to the system; otherwise it would hide a new allocation of the same size."""
    getattr(launch, "release_memory", lambda: None)()  # absent from kernels of older revisions
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise KeyError(field)
