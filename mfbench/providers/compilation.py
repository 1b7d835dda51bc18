"""`torch.compile` of a provider: whether PyTorch compiled it, or ran it in eager mode instead."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

import torch

from mfbench.wording import counted

SWITCHES = ("TORCHDYNAMO_DISABLE", "TORCH_COMPILE_DISABLE", "TORCHDYNAMO_SUPPRESS_ERRORS")  # variables to name


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `torch.compile` of a function, which raises if PyTorch runs it in eager mode instead.

    Whether it compiled is asked inside: `torch.compiler.is_compiling()` is true while the compiler traces it, and so
    becomes a constant of the compiled code.
    """

    @functools.partial(torch.compile, dynamic=False)
    def traced(*arguments: Any) -> tuple[Any, bool]:
        return function(*arguments), torch.compiler.is_compiling()

    def call(*arguments: Any) -> Any:
        result, was_compiled = traced(*arguments)
        if not was_compiled:
            raise RuntimeError(f"torch.compile did not compile, and ran the function in eager mode{_cause()}")
        return result

    return call


def ran_eagerly() -> str:
    """Return why code under `torch.compile` runs in eager mode in this process; empty if none is known to.

    Functions that the compiler gave up on are counted from the start of the process, or from `forget` on.
    """
    dynamo: Any = sys.modules.get("torch._dynamo")  # importing it takes seconds, and nothing was compiled without it
    if dynamo is None:
        return ""
    if dynamo.config.disable or os.environ.get("TORCHDYNAMO_DISABLE") == "1":
        return f"torch.compile is switched off{_cause()}, and runs in eager mode what it should compile"
    frames = dynamo.utils.counters["frames"]
    given_up = frames["total"] - frames["ok"]
    if not given_up:
        return ""
    return f"torch.compile gave up on {counted(given_up, 'function')}{_cause()}, and ran that in eager mode"


def forget() -> None:
    """Drop everything compiled, if anything was."""
    dynamo: Any = sys.modules.get("torch._dynamo")
    if dynamo is not None:
        torch.compiler.reset()
        dynamo.utils.counters.clear()


def _cause() -> str:
    switches = [f"{name}={os.environ[name]}" for name in SWITCHES if name in os.environ]
    return f" ({', '.join(switches)})" if switches else ""
