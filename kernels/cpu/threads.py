"""How many threads a step on the CPU uses."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch

VARIABLE = "MFBENCH_THREADS"  # a user's choice, which overrides PyTorch's number of threads
UNLIMITED = 1 << 30
CONTROL_GROUPS = Path("/sys/fs/cgroup")
QUOTA_FILES = (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))  # in version 2, and in version 1


def step_threads() -> int:
    """Return the number of threads of a step: PyTorch's, or another that the environment asks for."""
    return min(_from_environment() or torch.get_num_threads(), cpu_quota())


@cache
def _from_environment() -> int:
    return threads_from(os.environ, min(usable_cores(), cpu_quota()))


def threads_from(environment: Mapping[str, str], cores: int) -> int:
    """Return the number of threads that an environment asks for, 0 if it leaves that to PyTorch.

    torchrun sets OMP_NUM_THREADS to 1 where it starts several processes on a machine, and most cores would idle: a
    process then takes its share of the cores. One thread must be asked for by MFBENCH_THREADS=1.

    Args:
        environment: variables of the process.
        cores: that all processes of this machine may use together.

    Raises:
        ValueError: MFBENCH_THREADS is not a positive number.
    """
    chosen = environment.get(VARIABLE)
    if chosen:
        if not chosen.isdecimal() or not int(chosen):
            raise ValueError(f"{VARIABLE}: expected a positive number, got {chosen!r}")
        return int(chosen)
    processes = environment.get("LOCAL_WORLD_SIZE", "")
    by_torchrun = "TORCHELASTIC_RUN_ID" in environment and processes.isdecimal() and int(processes) > 1
    return max(1, cores // int(processes)) if by_torchrun and environment.get("OMP_NUM_THREADS") == "1" else 0


def usable_cores() -> int:
    """Return the number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def cpu_quota() -> int:
    """Return the number of CPUs that the control group grants this process, rounded up."""
    return quota_in(CONTROL_GROUPS)


def quota_in(folder: Path) -> int:
    """Return the quota that a folder of control groups holds, in CPUs; `UNLIMITED` if it holds none."""
    for files in QUOTA_FILES:
        with contextlib.suppress(OSError, ValueError):  # the other version, or "max"
            quota, period = (int(word) for file in files for word in (folder / file).read_text().split())
            if quota > 0:  # -1: none
                return max(1, -(-quota // period))
    return UNLIMITED
