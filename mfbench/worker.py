"""The process in which one provider runs: it prepares a case, computes outputs and times samples, as a pipe tells it.

A provider that crashes, hangs or eats all memory takes down this process only.
"""

from __future__ import annotations

import contextlib
import gc
import re
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np
import torch

from mfbench import memory, providers
from mfbench.cases import Case
from mfbench.inputs import draw, fingerprints, on_device

ALLOCATION_FAILED = re.compile("can't allocate memory|not enough memory")  # PyTorch's CPU allocator, a RuntimeError


class Prepared(NamedTuple):
    """What the first evaluations of a case showed."""

    outputs: list[np.ndarray]  # loss and gradients, float64
    first_s: float  # the first call, compilation included
    second_s: float
    peak_bytes: int | None  # beyond the inputs and outputs
    mutated: list[str]  # inputs that the provider changed


class Worker:
    """One provider on one device."""

    def __init__(self, provider: str, device: str, threads: int | None) -> None:
        if threads:
            torch.set_num_threads(threads)
        self.provider = providers.load(provider)
        self.device = device
        self.step: providers.Step | None = None

    def prepare(self, case: Case) -> Prepared:
        """Draw the inputs of a case, evaluate twice, and keep the step for sampling."""
        self.release()
        memory.limit_to_free_memory()
        inputs = on_device(draw(case), self.device)
        before = fingerprints(inputs)
        step = self.provider.prepare(inputs)
        (_, first_s), first_peak = memory.peak_of(lambda: self._timed(step), self.device)
        (second, second_s), second_peak = memory.peak_of(lambda: self._timed(step), self.device)
        compiled = first_s > 0.5 + 5 * second_s
        peak = second_peak if compiled else first_peak
        outputs = _numbers(second)
        outputs_bytes = sum(np.asarray(value.detach().cpu()).nbytes for value in _tensors(second))
        after = fingerprints(inputs)
        mutated = [name for name, old in before.items() if after[name] != old]
        self.step = step
        return Prepared(outputs, first_s, second_s, None if peak is None else max(0, peak - outputs_bytes), mutated)

    def sample(self, loops: int) -> float:
        """Seconds for `loops` evaluations, to completion."""
        assert self.step is not None
        step, synchronize = self.step, self._synchronize
        gc.disable()
        synchronize()
        start = time.perf_counter()
        for _ in range(loops):
            step()
        synchronize()
        elapsed = time.perf_counter() - start
        gc.enable()
        return elapsed

    def release(self) -> None:
        """Forget the case, so that its memory is free for others."""
        self.step = None
        gc.collect()
        if "torch._dynamo" in sys.modules:  # whose import takes seconds that only `compile` needs
            torch.compiler.reset()
        if self.device != "cpu":
            torch.cuda.empty_cache()

    def _timed(self, step: providers.Step) -> tuple[providers.Outputs, float]:
        self._synchronize()
        start = time.perf_counter()
        outputs = step()
        self._synchronize()
        return outputs, time.perf_counter() - start

    def _synchronize(self) -> None:
        if self.device != "cpu":
            torch.cuda.synchronize()


def _tensors(outputs: providers.Outputs) -> list[torch.Tensor]:
    loss, grads = outputs
    return [torch.as_tensor(value) for value in (loss, *grads)]


def _numbers(outputs: providers.Outputs) -> list[np.ndarray]:
    return [value.detach().cpu().to(torch.float64).numpy().copy() for value in _tensors(outputs)]


def main() -> None:
    """Serve requests `(method, arguments)` from the pipe whose two ends are named on the command line."""
    receive, send, provider, device, threads = sys.argv[1:]
    requests, answers = Connection(int(receive), writable=False), Connection(int(send), readable=False)
    worker = None
    try:
        worker = Worker(provider, device, int(threads) or None)
        answers.send(("ok", None))
    except BaseException as error:
        answers.send(_failure(error))
        return
    calls: dict[str, Callable[..., Any]] = {
        "prepare": worker.prepare,
        "sample": worker.sample,
        "release": worker.release,
    }
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            method, arguments = requests.recv()
            try:
                answers.send(("ok", calls[method](*arguments)))
            except BaseException as error:
                worker.step = None
                answers.send(_failure(error))


def _failure(error: BaseException) -> tuple[str, str]:
    text = f"{type(error).__name__}: {error}".strip().splitlines()
    reason = text[0] if text else type(error).__name__
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or ALLOCATION_FAILED.search(str(error)):
        return "oom", reason
    return "error", reason
