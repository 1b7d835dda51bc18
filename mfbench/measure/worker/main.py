"""The process in which one provider runs: it prepares a case, computes outputs and times samples, as a pipe tells it.

A provider that crashes, hangs or eats all memory takes down this process only.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from mfbench.correctness.audit import projection
from mfbench.errors import UsageError
from mfbench.measure.devices import affinity, memory
from mfbench.measure.devices.base import Device, Reading
from mfbench.measure.devices.cpu import CpuDevice, clock
from mfbench.measure.worker import pipe
from mfbench.measure.worker.forkserver import end_with_parent
from mfbench.problems.cases import Case
from mfbench.problems.inputs import Fingerprints, Inputs, draw, fingerprints, moved, on_device, redraw_parameters
from mfbench.providers import registry
from mfbench.providers.exceptions import reason
from mfbench.providers.outputs import WrongOutputs, flaws, tensors

REST_S = 0.25  # how long to wait for a rest, at most: Intel's OpenMP spins for 0.2 s
# as they are before a provider's code runs
item, detach, cpu, resolve_neg, numpy = (
    getattr(torch.Tensor, name) for name in ("item", "detach", "cpu", "resolve_neg", "numpy")
)
METHODS = ("prepare", "place", "sample", "samples", "project", "rest", "evaluate_anew", "changing_and_same", "release")


class Evaluated(NamedTuple):
    """One evaluation of a step."""

    outputs: list[np.ndarray]  # loss and gradients, float64
    seconds: float
    flaws: list[str]  # gradients of another shape or dtype, inputs that the provider changed


class Prepared(NamedTuple):
    """What the first evaluations of a case showed."""

    evaluated: Evaluated  # the second
    first_s: float  # compilation included
    second_s: float
    peak_bytes: int | None  # beyond the inputs and outputs


class Worker:
    """One provider on one device."""

    def __init__(self, provider: str, device: str, threads: int | None) -> None:
        if threads and threads != torch.get_num_threads():  # once set, MKL no longer takes fewer for small products
            torch.set_num_threads(threads)
        self.device = device
        self.where = _open(device)
        self.provider = registry.load(provider)
        self.inputs: Inputs | None = None
        self.copies: list[Inputs] = []  # the first are `inputs` themselves
        self.steps: list[registry.Step] = []  # one on each
        self.outputs: list[torch.Tensor] = []  # of the last sample, until they are looked at

    def prepare(self, case: Case) -> Prepared:
        """Draw the inputs of a case, evaluate twice, and keep the step for what comes."""
        self.release()
        memory.limit_to_free_memory()
        self.inputs = on_device(draw(case), self.device)
        before = fingerprints(self.inputs)
        step = self.provider.prepare(self.inputs)
        self.copies, self.steps = [self.inputs], [step]
        (first, first_s), first_peak = memory.peak_of(lambda: self._timed(step), self.device)
        _poison(tensors(first))
        (second, second_s), second_peak = memory.peak_of(lambda: self._timed(step), self.device)
        compiled = first_s > 0.5 + 5 * second_s
        peak = second_peak if compiled else first_peak
        outputs_bytes = sum(tensor.nbytes for tensor in tensors(second))
        return Prepared(
            self._evaluated(second, second_s, before),
            first_s,
            second_s,
            None if peak is None else max(0, peak - outputs_bytes),
        )

    def place(self, case: Case, draw_number: int) -> None:
        """Move the inputs to other memory, with the parameters of that draw, and prepare the step there.

        Pages, alignment and pointers are new; where memory has no room for two copies, the inputs stay.
        """
        self.copies, self.steps = [], []
        with contextlib.suppress(MemoryError, OSError, torch.OutOfMemoryError):
            self.inputs = moved(self._present())
        self._write(redraw_parameters(case, draw_number))
        memory.return_free_memory()  # so that what the step allocates is elsewhere, too
        inputs = self._present()
        copies = self.where.rotation(sum(value.nbytes for value in inputs if isinstance(value, torch.Tensor)))
        self.copies = [inputs, *(moved(inputs) for _ in range(copies - 1))]
        self.steps = [self.provider.prepare(inputs) for inputs in self.copies]
        for step in self.steps[:-1]:  # a sample evaluates the last one before its clock starts
            step()

    def sample(
        self, biases: Sequence[float], looked_at: Sequence[int], core: int | None = None
    ) -> tuple[Reading, list[tuple[int, float, float]]]:
        """Time an evaluation for each of the biases, to completion.

        Returns:
            The reading; of the evaluations that were looked at, their number, loss and gradient of the bias.
        """
        if core is not None:
            affinity.move_to(core)
        writers = [_writer(copy.global_bias) for copy in self.copies]
        watched, seen = frozenset(looked_at), []

        def vary(turn: int) -> None:
            writers[turn % len(writers)](biases[turn])

        def look(turn: int, outputs: registry.Outputs) -> None:
            if turn in watched:
                loss, (*_, d_bias) = outputs
                seen.append((turn, _number(loss), _number(d_bias)))

        gc.disable()
        reading, outputs = self.where.sample(self.steps, len(biases), vary, look)
        gc.enable()
        self.outputs = tensors(outputs)
        return reading._replace(core=affinity.current()), seen

    def samples(self, biases: Sequence[float], count: int) -> list[Reading]:
        """So many samples, one right after the other."""
        return [self.sample(biases, [])[0] for _ in range(count)]

    def project(self, bits: bytes) -> list[float]:
        """The last sample's outputs as sums with signs, which the bits decide on."""
        signs = projection.signs(bits)
        return [projection.project(_array(tensor), signs) for tensor in self.outputs]

    def rest(self) -> None:
        """Poison the last outputs, and wait until threads sleep that spin on after their work; others would feel them.

        GNU's OpenMP spins for 10 ms. The core is kept awake meanwhile: the next provider's sample begins on it.
        """
        _poison(self.outputs)
        self.outputs = []
        until, quiet = clock() + REST_S, 0
        while quiet < 2 and clock() < until:  # one look may meet a thread as it waits for a page
            time.sleep(0)  # lets other threads have the interpreter
            quiet = 0 if other_threads_run() else quiet + 1

    def evaluate_anew(self, case: Case, draw_number: int) -> Evaluated:
        """Evaluate once after other parameters were written into the same tensors."""
        self._write(redraw_parameters(case, draw_number))
        before = fingerprints(self._present())
        outputs, seconds = self._timed(self.steps[0])
        return self._evaluated(outputs, seconds, before)

    def changing_and_same(self, case: Case, draw_number: int, known: int, count: int) -> tuple[float, float]:
        """Seconds of an evaluation on parameters that change each time, and on those of the draw `known`.

        These are written again each time, too, so that only contents tell the two apart, and are left in the inputs.
        """

        def median_s(draws: Sequence[int]) -> float:
            seconds = []
            for number in draws:
                self._write(redraw_parameters(case, number))
                seconds.append(self._timed(self.steps[0])[1])
            return float(np.median(seconds[count // 2 :]))  # a cheat may trust contents only after a while

        return median_s(range(draw_number, draw_number + count)), median_s([known] * count)

    def release(self) -> None:
        """Forget the case, so that its memory is free for others."""
        self.copies, self.steps, self.outputs, self.inputs = [], [], [], None
        gc.collect()
        if "torch._dynamo" in sys.modules:  # whose import takes seconds that only `compile` needs
            torch.compiler.reset()
        if self.device != "cpu":
            torch.cuda.empty_cache()

    def _present(self) -> Inputs:
        assert self.inputs is not None  # `prepare` comes first
        return self.inputs

    def _write(self, parameters: dict[str, torch.Tensor]) -> None:
        inputs = self._present()
        for name, values in parameters.items():
            getattr(inputs, name).detach().copy_(values)  # a provider may have asked for its gradient

    def _timed(self, step: registry.Step) -> tuple[registry.Outputs, float]:
        self.where.synchronize()
        start = clock()
        outputs = step()
        self.where.synchronize()
        return outputs, clock() - start

    def _evaluated(self, outputs: registry.Outputs, seconds: float, before: Fingerprints) -> Evaluated:
        inputs = self._present()
        after = fingerprints(inputs)
        values = tensors(outputs)
        wrong = flaws(values, inputs)
        wrong += [f"changed its input {name}" for name, old in before.items() if after[name] != old]
        numbers = [value.detach().cpu().to(torch.float64).numpy().copy() for value in values]
        _poison(values)
        return Evaluated(numbers, seconds, wrong)


def _open(device: str) -> Device:
    if device == "cpu":
        return CpuDevice()
    from mfbench.measure.devices.cuda import CudaDevice

    return CudaDevice()


def other_threads_run() -> bool:
    """Whether any is on a core or waits for one, where Linux tells; their CPU times would show it a tick later."""
    if sys.platform != "linux":
        return False
    own = Path("/proc/thread-self").resolve()
    for task in own.parent.iterdir():
        with contextlib.suppress(OSError):  # it has ended
            if task != own and (task / "stat").read_bytes().rpartition(b")")[2].split()[0] == b"R":
                return True
    return False


def _array(tensor: torch.Tensor) -> np.ndarray:
    """The same memory where it is the CPU's; NumPy wakes no threads, which would be felt in the next sample."""
    return numpy(resolve_neg(cpu(detach(tensor))))


def _number(value: Any) -> float:
    return item(value) if isinstance(value, torch.Tensor) else np.asarray(value).item()


def _writer(bias: torch.Tensor) -> Callable[[float], Any]:
    """Writes a number into the tensor: on a CPU so that PyTorch does not know, on a GPU as the queue comes to it."""
    if bias.device.type == "cpu":
        return functools.partial(bias.detach().numpy().__setitem__, 0)
    return bias.detach().fill_


def _poison(outputs: Sequence[torch.Tensor]) -> None:
    """Leave NaN behind, so that memory which is used again does not hold the right answer already."""
    for tensor in outputs:
        if not tensor.dtype.is_floating_point:
            continue  # wrong anyway, which is said elsewhere
        if tensor.device.type == "cpu" and tensor.dtype != torch.bfloat16:  # which NumPy does not have
            _array(tensor).fill(np.nan)
        else:
            tensor.detach().fill_(float("nan"))


def main() -> None:
    """Serve requests `(method, arguments)` from the pipe whose two ends are named on the command line.

    The first one loads the provider.
    """
    end_with_parent()
    requests, answers, provider, device, threads = sys.argv[1:6]
    receive, answer = functools.partial(pipe.receive, int(requests)), functools.partial(pipe.send, int(answers))
    calls = {name: getattr(Worker, name) for name in METHODS}  # as they are before a provider's code runs
    token, _ = receive()
    try:
        worker = Worker(provider, device, int(threads) or None)
        answer(token, ("ok", None))
    except BaseException as error:
        answer(token, _failure(error))
        return
    process = os.getpid()
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            token, (method, arguments) = receive()
            try:
                result = ("ok", calls[method](worker, *arguments))
            except BaseException as error:
                worker.steps = []
                result = _failure(error)
            if os.getpid() != process:
                os._exit(0)  # a child that the provider forked has nothing to say here
            answer(token, result)


def _failure(error: BaseException) -> tuple[str, str]:
    if isinstance(error, WrongOutputs):
        return "wrong", str(error)
    if isinstance(error, UsageError):
        return "error", error.message
    return ("oom" if memory.exhausted(error) else "error"), reason(error)
