"""The backends: which can run here, which one a call gets, and why not another."""

from __future__ import annotations

import difflib
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import NamedTuple

from kernels.problem import Problem

MODULES = {
    "triton": "kernels.gpu.launch",
    "native": "kernels.cpu.launch",
    "torch": "kernels.tiled",
    "interpret": "kernels.gpu.interpret",
}


class Backend(NamedTuple):
    """Whether a backend can run on this machine, and the reason where it cannot."""

    available: bool
    reason: str


@cache  # asking the import system costs a microsecond a call
def implementation(name: str) -> ModuleType:
    """The module behind a backend's name; imported on first use, since a compiler may stand behind it.

    Each offers `unavailable(problem, precision, deterministic) -> str` (a reason, empty where it can run; without
    arguments it asks for the machine) and `step(problem, precision, deterministic, gradients) -> (loss, grads | None)`.
    """
    if name not in MODULES:
        close = difflib.get_close_matches(name, ("auto", *MODULES), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"backend: expected one of auto, {', '.join(MODULES)}, got {name!r}{hint}")
    return import_module(MODULES[name])


def backends() -> dict[str, Backend]:
    """Every backend by name: available on this machine or not, and why not."""
    reasons = {name: implementation(name).unavailable() for name in MODULES}
    return {name: Backend(not reason, reason) for name, reason in reasons.items()}


def choose(name: str, problem: Problem, precision: str = "ieee", deterministic: bool = False) -> ModuleType:
    """The module that runs `problem`.

    `auto` takes the fused kernel of the tensors' device and falls back to `torch`.

    Raises:
        TypeError, ValueError: that is no name, or no backend has it.
        RuntimeError: the backend asked for cannot run this problem here.
    """
    if name != "auto":
        if not isinstance(name, str):
            raise TypeError(f"backend: expected a name, got {name!r}")
        module = implementation(name)
        reason = module.unavailable(problem, precision, deterministic)
        if reason:
            raise RuntimeError(f"backend {name!r} cannot run this problem here: {reason}")
        return module
    fused = implementation("native" if problem.ratings.is_cpu else "triton")
    return implementation("torch") if fused.unavailable(problem, precision, deterministic) else fused
