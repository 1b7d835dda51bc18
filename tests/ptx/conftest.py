from __future__ import annotations

import dataclasses
import importlib.util

import pytest

from kernels.gpu import config

# What these compile needs Triton, which has no build for every platform; the interpreter itself does not.
if importlib.util.find_spec("triton") is None:
    collect_ignore = ["test_kernels.py", "test_faults.py", "test_shipped_builds.py", "test_sparse.py", "test_step.py"]


@pytest.fixture
def few_programs(monkeypatch):
    """A device of one multiprocessor, so that a program visits several tiles of even a small problem."""
    small = {name: dataclasses.replace(target, multiprocessors=1) for name, target in config.TARGETS.items()}
    monkeypatch.setattr(config, "TARGETS", small)
    monkeypatch.setattr(config, "DETERMINISTIC_PROGRAMS", 2)
