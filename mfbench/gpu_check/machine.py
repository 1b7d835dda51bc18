"""What the checks need of a machine: the fused kernel's backend, a GPU's streams and graphs, and its clock."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch

from kernels.gpu import config, launch
from kernels.precision import PRECISIONS
from mfbench.errors import UsageError
from mfbench.measure import roofline
from mfbench.measure.devices.base import Reading
from mfbench.measure.devices.cuda import CYCLES_PER_S, CudaDevice, sleep
from mfbench.measure.roofline import Ceilings
from mfbench.measure.rounds import Sampler, TimingHooks
from mfbench.providers.graphs import Captured
from mfbench.providers.registry import Outputs, Step

if TYPE_CHECKING:
    from mfbench.problems.cases import Case

DELAY_S = 0.2  # length of the kernel behind which a side stream's work is enqueued
METHOD = "one process, interleaved rounds in random order, data stays in place"
WALL_CLOCK = "perf_counter around evaluations in a row, launches included, "


class Size(NamedTuple):
    """Users and items of a problem."""

    m: int
    n: int


class Sizes(NamedTuple):
    """How large the problems are."""

    build: Size = Size(1000, 1500)  # of an equivalence check: several tiles either way, ragged
    walk: Size = Size(16384, 8192)  # enough users that a program walks over thousands of items
    notebook: Size = Size(200, 300)
    timed: tuple[Size, ...] = (Size(4096, 4096), Size(16384, 16384))
    rest: tuple[Size, ...] = (Size(1024, 1024), Size(2048, 65536))


class Enqueued(NamedTuple):
    """A step that was enqueued behind other work on a side stream."""

    outputs: Outputs
    waited: bool  # the call returned only after the device had finished


class Machine(Protocol):
    """Where the checks run: a GPU, or what stands in for one in the tests."""

    name: str
    device: str  # of tensors
    backend: str  # of the fused kernel
    precisions: tuple[str, ...]
    sizes: Sizes
    method: str  # how samples are taken, for records, after the clock

    def synchronize(self) -> None:
        """Wait for the device; raises if it has failed."""

    def capture(self, step: Step) -> Step:
        """Return a function that replays what the step enqueues."""

    def behind_a_delay(self, prepare: Callable[[], None], step: Step) -> Enqueued:
        """On a stream that is not the default one, enqueue a delay, then `prepare`, then the step."""

    def peak_of(self, step: Step) -> tuple[Outputs, int | None]:
        """Evaluate; return the outputs and the peak of allocated bytes beyond what was held before."""

    def not_shipped(self, rank: int, precision: str, deterministic: bool = False, parameter_bytes: int = 4) -> str:
        """Return why there is no build of the kernel for this device; empty if there is one."""

    def hooks(self, steps: Mapping[str, Step], wall_clock: bool) -> TimingHooks:
        """Return what timing in rounds calls.

        Args:
            steps: by provider.
            wall_clock: time evaluations in a row on the host, with what their launches cost it; otherwise only the
                device's own time, with a cleared cache.
        """

    def ceilings(self, case: Case) -> Ceilings:
        """Return the rates that the machine reaches on a case's working set."""

    def release(self) -> None:
        """Free the memory that nothing refers to, and compiled code of former cases."""


class Gpu:
    """The first CUDA or ROCm GPU that PyTorch sees; implements `Machine`."""

    device, backend, sizes, method = "cuda", "triton", Sizes(), METHOD

    def __init__(self) -> None:
        """Find the GPU.

        Raises:
            UsageError: there is none, or Triton is missing.
        """
        if not torch.cuda.is_available():
            message = "expected a CUDA or ROCm GPU, and PyTorch sees none here"
            raise UsageError(message, code="no-such-device")
        if reason := launch.unavailable():
            raise UsageError(reason, code="missing-package")
        self.name = torch.cuda.get_device_name(0)
        self._device = CudaDevice()
        self._target = launch.target_of(torch.device("cuda", 0))
        self.precisions = tuple(precision for precision in PRECISIONS if not self.not_shipped(30, precision))

    def synchronize(self) -> None:
        torch.cuda.synchronize()

    def capture(self, step: Step) -> Step:
        return Captured(step)

    def behind_a_delay(self, prepare: Callable[[], None], step: Step) -> Enqueued:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            sleep(int(DELAY_S * CYCLES_PER_S))
            prepare()
            outputs = step()
            waited = side.query()
        side.synchronize()
        return Enqueued(outputs, waited)

    def peak_of(self, step: Step) -> tuple[Outputs, int | None]:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        outputs = step()
        torch.cuda.synchronize()
        return outputs, torch.cuda.max_memory_allocated() - before

    def not_shipped(self, rank: int, precision: str, deterministic: bool = False, parameter_bytes: int = 4) -> str:
        try:
            config.pick(self._target, rank, precision, deterministic, parameter_bytes)
        except config.NotShipped as error:
            return str(error)
        return ""

    def hooks(self, steps: Mapping[str, Step], wall_clock: bool) -> TimingHooks:
        def sampler(step: Step) -> Sampler:
            def sample(loops: int, core: int | None = None) -> Reading:
                return self._sample_on_host(step, loops) if wall_clock else self._device.sample([step], loops)[0]

            return sample

        return TimingHooks({name: sampler(step) for name, step in steps.items()}, clock=time.perf_counter)

    def _sample_on_host(self, step: Step, loops: int) -> Reading:
        step()
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(loops):
            step()
        torch.cuda.synchronize()
        return Reading(time.perf_counter() - start, gaps=True)

    def ceilings(self, case: Case) -> Ceilings:
        return roofline.measure(case, self.device)

    def release(self) -> None:
        gc.collect()
        torch.compiler.reset()
        torch.cuda.empty_cache()
