"""`mfbench doctor` and `mfbench list`: what this machine can run, and the names that options take."""

from __future__ import annotations

import json
from typing import Any

import click
import torch

import kernels
from mfbench.errors import DataUnavailable
from mfbench.installation import ROOT
from mfbench.measure.footprint import footprint
from mfbench.problems import datasets
from mfbench.problems.cases import load_suite, suite_names
from mfbench.problems.inputs import resolve
from mfbench.providers import registry
from mfbench.results import environment

Findings = dict[str, Any]

PACKAGES = ("kernels", "mfbench", "reference")


def doctor(as_json: bool) -> int:
    """Print what this machine can run; return the exit code."""
    return _print(examine(), as_json)


def catalogue(as_json: bool) -> int:
    """Print the names that options take; return the exit code."""
    return _print(names(), as_json)


def _print(findings: Findings, as_json: bool) -> int:
    click.echo(json.dumps(findings, indent=2) if as_json else text(findings))
    return 0


def examine() -> Findings:
    """Return machine, versions, backends and data sets, with the reason if one cannot be used."""
    return {
        "machine": {
            "cpu": environment.cpu_name(),
            "usable cpus": environment.usable_cpus(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else _no_gpu(),
        },
        "versions": environment.versions(),
        "packages": {name: str(ROOT / name) for name in PACKAGES},
        "backends": {
            name: "available" if backend.available else f"not available: {backend.reason}"
            for name, backend in kernels.backends().items()
        },
        "data": {name: _data(name) for name, dataset in datasets.DATASETS.items() if dataset.path},
    }


def names() -> Findings:
    """Return everything that an option can name, with a description."""
    return {
        "suites": {name: _suite(name) for name in suite_names()},
        "providers": registry.names(),
        "devices": {
            "cpu": environment.cpu_name(),
            "cuda": torch.cuda.get_device_name(0) if torch.cuda.is_available() else f"not here: {_no_gpu()}",
        },
        "data": {name: dataset.description for name, dataset in datasets.DATASETS.items()},
    }


def text(findings: Findings) -> str:
    """Return findings as indented lines."""
    width = max(len(name) for section in findings.values() for name in section)
    lines = []
    for title, section in findings.items():
        lines += [title, *(f"  {name:{width}}  {what}" for name, what in section.items()), ""]
    return "\n".join(lines).rstrip()


def _suite(name: str) -> str:
    """Return a suite's description, and the memory of the largest of its cases that are drawn."""
    suite = load_suite(name)
    workers = len({*suite.providers, suite.baseline})
    drawn = [resolve(spec) for spec in suite.specs({}) if spec.size is not None]
    largest = max((footprint(case, workers, "cpu").total for case in drawn), default=0)
    return suite.description + (f"; in memory up to {largest / 1e9:.2g} GB" if largest else "")


def _data(name: str) -> str:
    try:
        ratings = datasets.load(name)
    except DataUnavailable as missing:
        return f"not available: {missing}"
    m, n = ratings.shape
    return f"{m} users, {n} items, {ratings.observed} ratings"


def _no_gpu() -> str:
    if not torch.backends.cuda.is_built():
        return "none: this PyTorch was built without CUDA or ROCm"
    return "none: PyTorch sees no device"
