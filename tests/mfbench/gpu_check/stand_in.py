"""What stands in for a GPU: Triton's interpreter computes, and a simulated device keeps the time.

Run as a program with the arguments of `gpu-check`, it is that command on the stand-in.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from mfbench.gpu_check import random_problems, times
from mfbench.gpu_check.machine import Enqueued, Size, Sizes
from mfbench.measure.roofline import Ceilings
from mfbench.measure.rounds import TimingHooks
from mfbench.providers.outputs import tensors
from mfbench.providers.registry import BUILTIN, Outputs, Step
from tests.mfbench.measure.devices.simulated import Machine, Nature, SimulatedDevice, timing_hooks

SIZES = Sizes(Size(70, 90), Size(80, 200), Size(20, 30), (Size(40, 50), Size(50, 60)), (Size(30, 20),))
SECONDS = {"autograd": 4e-4, "compile": 2e-4, "closed-form": 3e-4}  # of a step; the fused ones take 1e-4
GRAPH_GAIN = 2.0  # by which a replay is faster
PROBLEMS = 2  # random ones
NATURE = Nature(noise=0.005, spikes=0.0, drift=0.1)


class StandIn:
    """Implements `mfbench.gpu_check.machine.Machine`."""

    name, device, backend, precisions, sizes = "a simulated GPU", "cpu", "interpret", ("ieee", "tf32x3"), SIZES
    method = "simulated"

    def __init__(self) -> None:
        self.failure: Exception | None = None  # of the device, after which nothing runs

    def synchronize(self) -> None:
        if self.failure:
            raise self.failure

    def capture(self, step: Step) -> Step:
        """Evaluate anew in every call, into the memory of the first."""
        kept = step()

        def replay() -> Outputs:
            for old, new in zip(tensors(kept), tensors(step()), strict=True):
                old.copy_(new)
            return kept

        return replay

    def behind_a_delay(self, prepare: Callable[[], None], step: Step) -> Enqueued:
        prepare()
        return Enqueued(step(), waited=False)

    def peak_of(self, step: Step) -> tuple[Outputs, int | None]:
        return step(), None

    def not_shipped(self, rank: int, precision: str, deterministic: bool = False, parameter_bytes: int = 4) -> str:
        return ""

    def hooks(self, steps: Mapping[str, Step], wall_clock: bool) -> TimingHooks:
        machine = Machine(1, NATURE)
        devices = {name: SimulatedDevice(machine, seconds_of(name), step_waits=wall_clock) for name in steps}
        return timing_hooks(machine, devices)

    def ceilings(self, case: object) -> Ceilings:
        return Ceilings(5e13, None, 2e12)

    def release(self) -> None:
        pass


def seconds_of(provider: str) -> float:
    """Return how long the simulated device takes for a step."""
    plain = provider.removesuffix("-graph")
    return SECONDS.get(plain, 1e-4) / (GRAPH_GAIN if plain != provider else 1)


def without_compiler() -> dict[str, object]:
    """Return the built-in providers with eager autograd in the place of `torch.compile`, which takes minutes here."""
    return BUILTIN | {"compile": BUILTIN["autograd"]}


if __name__ == "__main__":
    from mfbench import bare
    from mfbench.commands import gpu_check

    random_problems.PROBLEMS = PROBLEMS
    times.BUILTIN = without_compiler()  # type: ignore[assignment]
    gpu_check.Gpu = StandIn  # type: ignore[misc, assignment]
    sys.exit(bare.run(["gpu-check", *sys.argv[1:]]))
