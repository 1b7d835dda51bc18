"""A model of the step over W processes: its operations, its bytes and its messages, over rates that are given.

T(W) = overhead + max(operations / rate, bytes / bandwidth) + communication, where the observed ratings are divided
evenly. An all-reduce of B bytes takes the time of a ring, 2 (W - 1) messages of B / W bytes each (Patarasuk and Yuan,
2009), or of a tree, 2 ceil(log2 W) messages, B bytes up and B down in a pipeline (Sanders, Speck and Träff, 2009).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, NamedTuple

from mfbench.measure.roofline import BYTES

if TYPE_CHECKING:
    from mfbench.problems.cases import Case

PRODUCTS = 3  # of k multiplications and k additions for each rating: error, and the gradients of both factors
SLOT_WORDS = 8  # numbers of the message in which each process sends its squared errors and the gradient of the bias
FLOAT_BYTES = 4


class Problem(NamedTuple):
    """What the model needs to know of a case."""

    m: int
    n: int
    k: int
    density: float
    sparse: bool
    rating_bytes: int  # of a stored rating: its value, and its mask or its column

    @classmethod
    def of(cls, case: Case) -> Problem:
        """Return the problem of a case."""
        beside = BYTES["int32"] if case.sparse else BYTES[case.mask]
        return cls(case.m, case.n, case.rank, case.density, case.sparse, BYTES[case.ratings_dtype] + beside)

    @property
    def stored(self) -> float:
        """Number of ratings that a step goes through: the observed ones, or all places of a dense matrix."""
        return self.m * self.n * (self.density if self.sparse else 1.0)

    def operations(self, processes: int) -> float:
        """Return the floating-point operations of one process in a step."""
        return 2 * PRODUCTS * self.k * self.stored / processes

    def memory_bytes(self, processes: int) -> float:
        """Return the bytes that one process moves in a step, at least: ratings and parameters once, gradients once.

        Sparse ratings also read a row of the items' factors each, and read and write one of their gradient, as nothing
        is assumed to stay in a cache.
        """
        rows = 3 * FLOAT_BYTES * self.k if self.sparse else 0
        parameters = 2 * FLOAT_BYTES * (self.m / processes + self.n) * (self.k + 1)
        return self.stored / processes * (self.rating_bytes + rows) + parameters

    def message_bytes(self, processes: int) -> float:
        """Return the bytes that the processes sum up in a step: the items' gradients, and squared errors."""
        return FLOAT_BYTES * (self.n * (self.k + 1) + SLOT_WORDS * processes)


class Processor(NamedTuple):
    """What one process computes with, while the others do the same."""

    flops_per_s: float  # of the step's kernel
    bytes_per_s: float = math.inf  # of its memory; infinite: not modelled
    overhead_s: float = 0.0  # of a step without users

    def seconds(self, problem: Problem, processes: int) -> float:
        """Return the seconds of computing in a step."""
        arithmetic = problem.operations(processes) / self.flops_per_s
        return self.overhead_s + max(arithmetic, problem.memory_bytes(processes) / self.bytes_per_s)


class Network(NamedTuple):
    """What connects the processes."""

    latency_s: float  # of one message
    bytes_per_s: float  # that one process sends
    algorithm: Literal["ring", "ring or tree"] = "ring"  # of the all-reduce

    def seconds(self, size: float, processes: int) -> float:
        """Return the seconds of an all-reduce of that many bytes."""
        if processes == 1:
            return 0.0
        ring = 2 * (processes - 1) * (self.latency_s + size / processes / self.bytes_per_s)
        if self.algorithm == "ring":
            return ring
        tree = 2 * math.ceil(math.log2(processes)) * self.latency_s + 2 * size / self.bytes_per_s
        return min(ring, tree)

    @classmethod
    def fitted(cls, processes: int, small: tuple[float, float], large: tuple[float, float]) -> Network:
        """Return the ring whose latency and bandwidth explain two all-reduces.

        Args:
            processes: of the group, 2 or more.
            small, large: bytes and seconds of each.
        """
        (few, short), (many, long) = small, large
        per_byte = max(long - short, 1e-12) / (many - few)
        latency = max(short - few * per_byte, 0.0) / (2 * (processes - 1))
        return cls(latency, 2 * (processes - 1) / processes / per_byte)


class Machine(NamedTuple):
    """Processors, and networks by the number of processes that they connect."""

    name: str
    processor: Processor
    inside: Network  # up to `together` processes
    between: Network
    together: int

    def network(self, processes: int) -> Network:
        """Return what binds a group of that size."""
        return self.inside if processes <= self.together else self.between

    def computing_s(self, problem: Problem, processes: int) -> float:
        """Return the seconds of computing in a step."""
        return self.processor.seconds(problem, processes)

    def communicating_s(self, problem: Problem, processes: int) -> float:
        """Return the seconds of communication in a step, none of it hidden."""
        return self.network(processes).seconds(problem.message_bytes(processes), processes)

    def binds_from(self, problem: Problem, most: int) -> int | None:
        """Return the power of 2 from which a step spends more on communication than on computing; None above `most`."""
        for exponent in range(1, int(math.log2(most)) + 1):
            processes: int = 2**exponent
            if self.communicating_s(problem, processes) > self.computing_s(problem, processes):
                return processes
        return None


# Data sheet of the H100 SXM: 67 TFLOP/s float32, 3.35 TB/s, NVLink 450 GB/s in each direction. Between machines, rings
# use all eight adapters of 400 Gb/s. Latencies are assumptions, of the order of what NCCL's tuning tables have. No step
# reaches all of these rates.
H100_CLUSTER = Machine(
    name="H100 SXM, 8 to a machine with NVLink, an InfiniBand adapter of 400 Gb/s each",
    processor=Processor(flops_per_s=67e12, bytes_per_s=3.35e12, overhead_s=20e-6),
    inside=Network(5e-6, 450e9, "ring or tree"),
    between=Network(15e-6, 400e9, "ring or tree"),
    together=8,
)
