"""The backends: which can run on this machine, which one a call gets, and why the others cannot run."""

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
    """Availability of a backend on this machine, and the reason if it is not available."""

    available: bool
    reason: str


@cache  # import_module costs a microsecond per call
def implementation(name: str) -> ModuleType:
    """Import and return the module of a backend, on first use, since it may need a compiler.

    Each module has `unavailable(problem, precision, deterministic) -> str`, the reason why it cannot run the problem,
    or anything on this machine if called without arguments, empty if it can; and
    `step(problem, precision, deterministic, gradients) -> (loss, grads | None)`.

    Raises:
        ValueError: no backend has that name.
    """
    if name not in MODULES:
        close = difflib.get_close_matches(name, ("auto", *MODULES), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"backend: expected one of auto, {', '.join(MODULES)}, got {name!r}{hint}")
    return import_module(MODULES[name])


def backends() -> dict[str, Backend]:
    """Return every backend by name: whether it is available on this machine, and if not, why."""
    reasons = {name: implementation(name).unavailable() for name in MODULES}
    return {name: Backend(not reason, reason) for name, reason in reasons.items()}


def choose(name: str, problem: Problem, precision: str = "ieee", deterministic: bool = False) -> ModuleType:
    """Return the module that runs `problem`.

    `auto` picks the fused kernel for the tensors' device and falls back to `torch`.

    Raises:
        TypeError: `name` is not a string.
        ValueError: no backend has that name.
        RuntimeError: the requested backend cannot run this problem here.
    """
    if name != "auto":
        if not isinstance(name, str):
            raise TypeError(f"backend: expected a name, got {name!r}")
        reason = _refusal(name, problem, precision, deterministic)
        if reason:
            raise RuntimeError(f"backend {name!r} cannot run this problem here: {reason}")
        return implementation(name)
    fused = "native" if problem.observations.ratings.is_cpu else "triton"
    return implementation("torch" if _refusal(fused, problem, precision, deterministic) else fused)


def _refusal(name: str, problem: Problem, precision: str, deterministic: bool) -> str:
    """Return why a backend cannot run `problem`, empty if it can."""
    reason: str = implementation(name).unavailable(problem, precision, deterministic)
    return reason
