"""What the model is given: rates of the processors and of the network, measured in the same launches as the steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from mfbench.measure.scaling.model import Network
from mfbench.problems.inputs import Inputs, moved
from mfbench.providers import over_processes

PRODUCT = 384  # rows and columns of the product whose rate is measured: it fits into a core's cache
ARITHMETIC_S = 0.3  # long enough for processes that share a core to take turns
MESSAGES = ((64, 60), (1 << 22, 30))  # bytes of an all-reduce, and how many of them
APART_S = 0.01  # computing before each message, as in a step: processes then arrive at different times
CALIBRATE_ONE_IN = 4  # users
FEWEST, CALIBRATION_S = 5, 0.5  # steps of a calibration, and time for more


class Probes(NamedTuple):
    """Measured in every process at the same time."""

    flops_per_s: float  # of a matrix product in one process
    messages_s: tuple[float, ...]  # seconds of an all-reduce of each size in `MESSAGES`; empty: one process

    @classmethod
    def combined(cls, of_processes: Sequence[Probes]) -> Probes:
        """Return the rate of the slowest process, and of the messages' seconds, which include waiting, the means."""
        return cls(
            min(probes.flops_per_s for probes in of_processes),
            tuple(float(np.mean(each)) for each in zip(*(probes.messages_s for probes in of_processes), strict=True)),
        )

    def network(self, processes: int) -> Network | None:
        """Return latency and bandwidth of the group; None of one process."""
        if not self.messages_s:
            return None
        small, large = ((size, seconds) for (size, _), seconds in zip(MESSAGES, self.messages_s, strict=True))
        return Network.fitted(processes, small, large)


class Calibration(NamedTuple):
    """Steps of one process on part of a problem."""

    overhead_s: float  # of a step without users
    seconds: float  # of a step on `share` of the users
    share: float


def probe(processes: int) -> Probes:
    """Measure the rate of a product, and all-reduces of the default group, which every process calls alike."""
    a, b = torch.rand(PRODUCT, PRODUCT), torch.rand(PRODUCT, PRODUCT)
    torch.mm(a, b)
    dist.barrier()
    start, products = time.perf_counter(), 0
    while time.perf_counter() < start + ARITHMETIC_S:
        torch.mm(a, b)
        products += 1
    elapsed = time.perf_counter() - start
    apart = max(1, round(products * APART_S / elapsed))

    def message_s(buffer: Tensor) -> float:
        for _ in range(apart):
            torch.mm(a, b)
        return _seconds(lambda: dist.all_reduce(buffer))

    messages = MESSAGES if processes > 1 else ()
    seconds = (np.median([message_s(torch.zeros(size // 4)) for _ in range(count)]) for size, count in messages)
    return Probes(2.0 * PRODUCT**3 * products / elapsed, tuple(map(float, seconds)))


def calibrate(provider: str, inputs: Inputs) -> Calibration:
    """Time a provider's step in a group of one process, on some of the users and on none of them."""
    users = len(inputs.user_factors)
    some = max(1, users // CALIBRATE_ONE_IN)
    none_s, some_s = (
        _median_s(over_processes.prepare(provider, moved(inputs.of_users(slice(0, count))))) for count in (0, some)
    )
    return Calibration(none_s, some_s, some / users)


def _median_s(step: Callable[[], object]) -> float:
    step()
    start, times = time.perf_counter(), [_seconds(step) for _ in range(FEWEST)]
    while time.perf_counter() < start + CALIBRATION_S:
        times.append(_seconds(step))
    return float(np.median(times))


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
