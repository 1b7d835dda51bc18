"""`mfbench doctor` and `mfbench list`: what this machine can run and why not, and what there is to name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

import kernels
import mfbench
import reference
from mfbench.errors import DataUnavailable
from mfbench.problems import datasets
from mfbench.problems.cases import load_suite, suite_names
from mfbench.providers import registry
from mfbench.results import environment

Findings = dict[str, Any]


def examine() -> Findings:
    """Machine, versions, backends and data sets with the reason where one cannot be used."""
    return {
        "machine": {
            "cpu": environment.cpu_name(),
            "usable cpus": environment.usable_cpus(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else _no_gpu(),
        },
        "versions": environment.versions(),
        "packages": {
            module.__name__: str(Path(module.__file__ or "").parent) for module in (kernels, mfbench, reference)
        },
        "backends": {
            name: "available" if backend.available else f"not available: {backend.reason}"
            for name, backend in kernels.backends().items()
        },
        "data": {name: _data(name) for name, dataset in datasets.DATASETS.items() if dataset.path},
    }


def catalogue() -> Findings:
    """Everything that an option can name, with what it is."""
    return {
        "suites": {name: load_suite(name).description for name in suite_names()},
        "providers": registry.names(),
        "devices": {
            "cpu": environment.cpu_name(),
            "cuda": torch.cuda.get_device_name(0) if torch.cuda.is_available() else f"not here: {_no_gpu()}",
        },
        "data": {name: dataset.description for name, dataset in datasets.DATASETS.items()},
    }


def text(findings: Findings) -> str:
    """Findings or a catalogue as indented lines."""
    width = max(len(name) for section in findings.values() for name in section)
    lines = []
    for title, section in findings.items():
        lines += [title, *(f"  {name:{width}}  {what}" for name, what in section.items()), ""]
    return "\n".join(lines).rstrip()


def _data(name: str) -> str:
    try:
        ratings = datasets.load(name)
    except DataUnavailable as missing:
        return f"not available: {missing}"
    m, n = ratings.values.shape
    return f"{m} users, {n} items, {int(ratings.mask.count_nonzero())} ratings"


def _no_gpu() -> str:
    if not torch.backends.cuda.is_built():
        return "none: this PyTorch was built without CUDA or ROCm"
    return "none: PyTorch sees no device"
