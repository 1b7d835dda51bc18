"""What a record says of the machine and the software that it was taken on."""

from __future__ import annotations

import datetime
import functools
import hashlib
import os
import platform
import secrets
import subprocess
import sys
from collections.abc import Callable
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from mfbench import log
from mfbench.git import git
from mfbench.installation import ROOT
from mfbench.wording import counted

try:
    import psutil
except ImportError:  # `gpu-check` runs without it
    psutil = None

GIT_TIMEOUT_S = 10
PACKAGES = ("torch", "triton", "numpy", "mfbench")

MATMUL_LIBRARIES = {"cpu": "mkldnn", "cuda": "cuda"}  # as PyTorch's precision switches name them, by device


def describe(device: str) -> dict[str, Any]:
    """Names, versions, threads, clocks and load, as of now."""
    return {
        **_fixed(),
        **(_gpu() if device != "cpu" else {}),
        "threads": torch.get_num_threads(),
        "clocks": _clocks(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def source(provider: str) -> str | None:
    """A digest of the file that a provider of the user's is in; None of other providers and of another revision's."""
    module, colon, function = provider.rpartition(":")
    if not colon or "@" in function:
        return None
    file = module if module.endswith(".py") else _file_of(module)
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16] if file else None
    except OSError:
        return None


def _file_of(module: str) -> str | None:
    """Return the file of a module, found here or on Python's path without importing its package."""
    folders: list[str] | None = [os.getcwd(), *sys.path]
    for name in module.split("."):
        spec = PathFinder.find_spec(name, folders)
        if spec is None:
            return None
        folders = spec.submodule_search_locations
    return spec.origin if spec else None


def versions() -> dict[str, str]:
    """Installed versions of what decides about speed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return found


def product_precisions() -> dict[str, str]:
    """Return what PyTorch's switches allow float32 products to be computed in, by device: "ieee", "tf32" or "bf16"."""
    getter: Callable[[str, str], str] = torch._C._get_fp32_precision_getter
    return {device: getter(library, "matmul").replace("none", "ieee") for device, library in MATMUL_LIBRARIES.items()}


def cpu_name() -> str:
    """The processor's own name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def usable_cpus() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_threads(threads: int | None) -> None:
    """Note that there are more threads, asked for or PyTorch's own choice, than processors or their quota allows."""
    from kernels.cpu.threads import cpu_quota  # here, as workers may have kernels of an older revision

    chosen, cpus = threads or torch.get_num_threads(), min(usable_cpus(), cpu_quota())
    if chosen > cpus:
        log.note(f"--threads: {chosen} threads share {counted(cpus, 'CPU')} and wait for each other")


@functools.cache
def _fixed() -> dict[str, Any]:
    status = _git(ROOT, "status", "--porcelain")
    return {
        "cpu": cpu_name(),
        "cpus": usable_cpus(),
        "memory_bytes": psutil and psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.release()}",
        "versions": versions(),
        "commit": _git(ROOT, "rev-parse", "HEAD"),
        "dirty": None if status is None else bool(status),
    }


def _git(root: Path, *arguments: str) -> str | None:
    if not (root / ".git").exists():
        return None
    try:
        done = git(root, *arguments, timeout_s=GIT_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if done.returncode else done.stdout.decode(errors="replace").strip()


@functools.cache
def _gpu() -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(0)
    return {
        "gpu": properties.name,
        "gpu_memory_bytes": properties.total_memory,
        "multiprocessors": properties.multi_processor_count,
        "driver": torch.version.hip or torch.version.cuda,
    }


def _clocks() -> dict[str, float] | None:
    if psutil is None:
        return None
    try:
        frequency = psutil.cpu_freq()
    except (OSError, NotImplementedError):
        return None
    return {"cpu_mhz": round(frequency.current)} if frequency else None


def new_run_id() -> str:
    """Return an identifier that sorts by time: UTC to the second, and random digits."""
    return f"{datetime.datetime.now(datetime.timezone.utc):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
