"""The worker process: runs one provider, and evaluates and times it on requests received over a pipe.

A provider that crashes, hangs or exhausts memory takes down this process only.
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

from mfbench.correctness.audit import probe
from mfbench.correctness.audit.probe import Challenge, Observation, Probe
from mfbench.errors import UsageError
from mfbench.measure.devices import affinity, memory
from mfbench.measure.devices.base import NO_HOOKS, Device, Reading
from mfbench.measure.devices.cpu import CpuDevice, clock
from mfbench.measure.worker import pipe
from mfbench.measure.worker.forkserver import end_with_parent
from mfbench.problems import matrices, shared
from mfbench.problems.cases import Case
from mfbench.problems.inputs import (
    Fingerprints,
    Inputs,
    MatrixTooLarge,
    fingerprints,
    moved,
    on_device,
    redraw_parameters,
)  # fmt: skip
from mfbench.problems.shared import Location
from mfbench.providers import compilation, registry
from mfbench.providers.exceptions import reason
from mfbench.providers.graphs import NeedsGpu
from mfbench.providers.outputs import WrongOutputs, changed_inputs, flaws, tensors
from mfbench.results.codes import Code, Finding
from mfbench.results.environment import product_precisions

REST_S = 0.25  # longest wait for threads to go to sleep; Intel's OpenMP spins for 0.2 s
METHODS = (
    "prepare", "place", "sample", "samples_in_a_row", "project", "rest", "evaluate_redrawn", "time_draws", "release",
)  # fmt: skip


class Evaluated(NamedTuple):
    """Result of one evaluation."""

    outputs: list[np.ndarray]  # loss and gradients, float64
    seconds: float
    flaws: list[Finding]  # gradients of the wrong shape or dtype, inputs that the provider changed
    eager: str  # why code under torch.compile ran in eager mode so far; empty if it did not


class Prepared(NamedTuple):
    """Result of the first two evaluations of a case."""

    evaluated: Evaluated  # the second
    first_s: float  # includes compilation
    second_s: float
    peak_bytes: int | None  # beyond inputs and outputs
    settings: dict[str, Any]  # of PyTorch in this process, which the provider may have changed, for the record's `env`


class Worker:
    """One provider on one device."""

    def __init__(self, provider: str, device: str, threads: int | None) -> None:
        """Load the provider.

        Args:
            provider: as `mfbench.providers.registry.load` takes it.
            device: "cpu" or "cuda".
            threads: for PyTorch; None leaves its default.
        """
        if threads and threads != torch.get_num_threads():  # once set, MKL no longer uses fewer for small products
            torch.set_num_threads(threads)
        self.device_name = device
        self.device = _open(device)
        self.provider = registry.load(provider)
        self.location: Location | None = None  # of the inputs, for all processes
        self.inputs: Inputs | None = None
        self.seen: Inputs | None = None  # by the provider: `inputs`, perhaps with a matrix in place of sparse ratings
        self.copies: list[Inputs] = []  # the first is `inputs`
        self.steps: list[registry.Step] = []  # one for each copy
        self.outputs: list[torch.Tensor] = []  # of the last sample, until `rest`

    def prepare(self, location: Location) -> Prepared:
        """Map the inputs of a case, prepare the provider's step, and evaluate it twice."""
        self.release()
        memory.limit_to_free_memory(location.size)
        self.location, self.inputs = location, on_device(shared.mapped(location), self.device_name)
        self.seen = self.provider.seen(self.inputs)
        before = fingerprints(self.seen)
        step = self.provider.prepare(self.seen)
        self.copies, self.steps = [self.inputs], [step]
        (first, first_s), first_peak = memory.peak_of(lambda: self._timed(step), self.device_name)
        probe.poison(tensors(first))
        (second, second_s), second_peak = memory.peak_of(lambda: self._timed(step), self.device_name)
        compiled = first_s > 0.5 + 5 * second_s
        peak = second_peak if compiled else first_peak
        outputs_bytes = sum(tensor.nbytes for tensor in tensors(second))
        return Prepared(
            self._evaluated(second, second_s, before),
            first_s,
            second_s,
            None if peak is None else max(0, peak - outputs_bytes),
            {"product_precisions": product_precisions(), "provider_threads": torch.get_num_threads()},
        )

    def place(self, case: Case, draw_number: int) -> None:
        """Move the inputs to new memory, write the parameters of that draw, and prepare the step there.

        Pages, alignment and pointers are new. Where memory has no room for two copies, the inputs stay in place.
        """
        self.copies, self.steps, self.seen = [], [], None
        with contextlib.suppress(MemoryError, OSError, torch.OutOfMemoryError):
            self.inputs = self._moved()
        self._write(redraw_parameters(case, draw_number))
        memory.return_free_memory()  # so that the step's own buffers get new memory too
        inputs = self._prepared()
        copies = self.device.rotation(
            sum(matrices.size_in_bytes(value) for value in inputs if isinstance(value, torch.Tensor))
        )
        self.copies = [inputs, *(moved(inputs) for _ in range(copies - 1))]
        seen = [self.provider.seen(inputs) for inputs in self.copies]
        self.seen = seen[0]
        self.steps = [self.provider.prepare(inputs) for inputs in seen]
        for step in self.steps[:-1]:  # a sample evaluates the last one before its clock starts
            step()

    def sample(
        self, loops: int, core: int | None = None, challenge: Challenge | None = None
    ) -> tuple[Reading, list[Observation]]:
        """Time `loops` evaluations, to completion.

        Args:
            loops: number of evaluations.
            core: of the host, to start on.
            challenge: the audit's; None for plain timing.

        Returns:
            The reading, and what the audit's probe observed.
        """
        if core is not None:
            affinity.migrate_to(core)
        hooks = Probe(challenge, [copy.global_bias for copy in self.copies]) if challenge else None
        gc.disable()
        reading, outputs = self.device.sample(self.steps, loops, hooks or NO_HOOKS)
        gc.enable()
        self.outputs = tensors(outputs)
        return reading._replace(core=affinity.current()), hooks.observations if hooks else []

    def samples_in_a_row(self, loops: int, count: int, challenge: Challenge) -> list[Reading]:
        """Take `count` samples with nothing between them."""
        return [self.sample(loops, None, challenge)[0] for _ in range(count)]

    def project(self, bits: bytes) -> list[float]:
        """Return the signed sums of the last sample's outputs."""
        return probe.project(self.outputs, bits)

    def rest(self) -> None:
        """Poison the last outputs, and wait for threads that spin after their work and would disturb other workers.

        GNU's OpenMP spins for 10 ms. This thread keeps its core awake meanwhile, since the next provider's sample
        starts on it.
        """
        probe.poison(self.outputs)
        self.outputs = []
        deadline, quiet = clock() + REST_S, 0
        while quiet < 2 and clock() < deadline:  # a single look may find a spinning thread waiting for a page
            time.sleep(0)  # releases the interpreter lock
            quiet = 0 if other_threads_run() else quiet + 1

    def evaluate_redrawn(self, case: Case, draw_number: int) -> Evaluated:
        """Write the parameters of that draw into the same tensors, and evaluate once."""
        self._write(redraw_parameters(case, draw_number))
        assert self.seen is not None  # `place` comes first
        before = fingerprints(self.seen)
        outputs, seconds = self._timed(self.steps[0])
        return self._evaluated(outputs, seconds, before)

    def time_draws(self, case: Case, draws: Sequence[int]) -> list[float]:
        """Return the seconds of one evaluation after each of these parameter draws has been written to the inputs."""
        seconds = []
        for number in draws:
            self._write(redraw_parameters(case, number))
            seconds.append(self._timed(self.steps[0])[1])
        return seconds

    def release(self) -> None:
        """Free the memory of the case."""
        self.copies, self.steps, self.outputs = [], [], []
        self.inputs, self.seen, self.location = None, None, None
        gc.collect()
        compilation.forget()
        if self.device_name != "cpu":
            torch.cuda.empty_cache()

    def _moved(self) -> Inputs:
        if self.device_name != "cpu":
            return moved(self._prepared())
        assert self.location is not None  # `prepare` comes first
        return shared.moved(self.location, self._prepared())

    def _prepared(self) -> Inputs:
        assert self.inputs is not None  # `prepare` comes first
        return self.inputs

    def _write(self, parameters: dict[str, torch.Tensor]) -> None:
        inputs = self._prepared()
        for name, values in parameters.items():
            getattr(inputs, name).detach().copy_(values)  # the provider may have set requires_grad

    def _timed(self, step: registry.Step) -> tuple[registry.Outputs, float]:
        self.device.synchronize()
        start = clock()
        outputs = step()
        self.device.synchronize()
        return outputs, clock() - start

    def _evaluated(self, outputs: registry.Outputs, seconds: float, before: Fingerprints) -> Evaluated:
        assert self.seen is not None  # `prepare` comes first
        changed = changed_inputs(self.seen, before)
        values = tensors(outputs)
        numbers = [value.detach().cpu().to(torch.float64).numpy().copy() for value in values]
        found = flaws(values, self.seen) + changed
        probe.poison(values)
        return Evaluated(numbers, seconds, found, compilation.ran_eagerly())


def _open(device: str) -> Device:
    if device == "cpu":
        return CpuDevice()
    from mfbench.measure.devices.cuda import CudaDevice

    return CudaDevice()


def other_threads_run() -> bool:
    """Return whether another thread of this process is runnable; False where the system does not report it.

    CPU times would show it only a tick later.
    """
    if sys.platform != "linux":
        return False
    own = Path("/proc/thread-self").resolve()
    for task in own.parent.iterdir():
        with contextlib.suppress(OSError):  # the thread has ended
            if task != own and (task / "stat").read_bytes().rpartition(b")")[2].split()[0] == b"R":
                return True
    return False


def main() -> None:
    """Serve requests `(method, arguments)` from the pipe whose two ends are given on the command line.

    The first request loads the provider.
    """
    end_with_parent()
    memory.prefer_to_be_killed()
    requests, answers, provider, device, threads = sys.argv[1:6]
    receive, answer = functools.partial(pipe.receive, int(requests)), functools.partial(pipe.send, int(answers))
    methods: dict[str, Callable[..., Any]] = {
        name: getattr(Worker, name) for name in METHODS
    }  # saved before user code can monkey-patch them
    token, _ = receive()
    try:
        worker = Worker(provider, device, int(threads) or None)
        answer(token, (None, None))
    except BaseException as error:
        answer(token, _failure(error))
        return
    process = os.getpid()
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            token, (method, arguments) = receive()
            answered: tuple[Code | None, Any]
            try:
                answered = None, methods[method](worker, *arguments)
            except BaseException as error:
                worker.steps = []
                answered = _failure(error)
            if os.getpid() != process:
                os._exit(0)  # a child that the provider forked must not answer
            answer(token, answered)


def _failure(error: BaseException) -> tuple[Code, tuple[str, ...]]:
    """Return the code of a failure, and the other arguments of `ProviderFailure`."""
    if isinstance(error, WrongOutputs):
        return Code.BAD_OUTPUTS, (str(error),)
    if isinstance(error, UsageError) and not memory.exhausted(error):
        return Code.PROVIDER_LOAD_FAILED, (error.message, error.code)
    if isinstance(error, NeedsGpu):
        return Code.NEEDS_GPU, (str(error),)
    if isinstance(error, MatrixTooLarge):
        return Code.TOO_LARGE_FOR_MEMORY, (str(error),)
    return Code.OOM if memory.exhausted(error) else Code.EXCEPTION, (reason(error),)
