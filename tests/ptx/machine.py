"""Execution: a block's threads in lockstep where they agree, lowest program counter first where they do not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np
import torch

from . import alu, convert, load_store, matrix, tcgen05, warp, wgmma  # noqa: F401  (each registers its instructions)
from .errors import Diverged, Endless
from .matrix import multiply_add as add_in_numpy
from .mbarrier import Barriers
from .memory import GlobalMemory, LocalMemory
from .parser import Instruction, parse
from .program import Program
from .races import WARP, Clock, Race
from .shared import SharedMemory
from .tensor_memory import TensorMemory
from .types import TYPES, UNSIGNED
from .warpgroups import Warpgroups

MAX_STEPS = 5_000_000  # a block
POISON = 0xFF  # each byte of a register before it is written
MultiplyAdd = Callable[[np.ndarray, np.ndarray, np.ndarray, str], np.ndarray]  # as `matrix.multiply_add`


@dataclass
class Report:
    """What a launch did."""

    instructions: int = 0  # executed, each counted once for all threads that execute it together
    races: list[Race] = field(default_factory=list)


def run(
    ptx: str,
    entry: str | None,
    grid: Sequence[int],
    num_warps: int,
    shared_bytes: int,
    args: Sequence[torch.Tensor | int | float],
    order: Iterable[int] | None = None,
    schedule: Sequence[int] | None = None,
    multiply_add: MultiplyAdd = add_in_numpy,
    late: bool = False,
) -> Report:
    """Execute one launch of compiled PTX on CPU tensors, block after block.

    Args:
        args: the kernel's parameters in order; pointers that follow the last one given (Triton's scratch) are null.
        order: the blocks' linear indices, x fastest; None: ascending.
        schedule: a block's warps: each goes as far as it can before the next one moves, which shows what a missing
            barrier can do; None: all in lockstep.
        multiply_add: the arithmetic of the matrix units.
        late: asynchronous matrix instructions read their operands when they are waited for, not when they are issued.
            Hardware may do either.

    Raises:
        PTXError: an unknown instruction, an access out of bounds or misaligned, a barrier that warps split at, a
            register used while it is in flight or without a fence, no end.
    """
    extents = (*grid, 1, 1)[:3]
    blocks = extents[0] * extents[1] * extents[2]
    program = _program(ptx, entry, num_warps * WARP, shared_bytes)
    tensors = {i: arg for i, arg in enumerate(args) if isinstance(arg, torch.Tensor)}
    memory = GlobalMemory(tensors, program.unit, blocks)
    parameters = _parameters(program, args, memory)
    report = Report()
    with np.errstate(all="ignore"):
        for index in range(blocks) if order is None else order:
            block = Block(program, memory, parameters, extents, index, schedule, multiply_add, late)
            block.run()
            report.instructions += block.executed
    report.races = list(memory.races.found.values())
    return report


@lru_cache(maxsize=32)
def _program(ptx: str, entry: str | None, threads: int, shared_bytes: int) -> Program:
    return Program(parse(ptx, entry), threads, shared_bytes)


def _parameters(program: Program, args: Sequence, memory: GlobalMemory) -> np.ndarray:
    """The bytes of the launch's parameters."""
    kinds = program.kernel.parameters
    if len(args) > len(kinds):
        raise ValueError(f"args: expected at most {len(kinds)} as {program.kernel.name} takes, got {len(args)}")
    data = np.zeros(program.parameter_bytes, np.uint8)
    for i, ((name, kind), arg) in enumerate(zip(kinds.items(), args, strict=False)):
        size = TYPES[kind].bits // 8
        if isinstance(arg, torch.Tensor):
            value = np.array([memory.arguments[i].base], np.uint64)
        elif isinstance(arg, float) or kind.startswith("f"):
            value = np.array([arg], f"f{size}")
        else:
            value = np.array([int(arg) & (1 << 8 * size) - 1], f"u{size}")
        data[program.addresses[name] :][:size] = value.view(np.uint8)
    return data


class Registers(dict):
    """name -> [threads] of unsigned integers or bool; poison until written."""

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.program = program

    def __missing__(self, name: str) -> np.ndarray:
        dtype, threads = np.dtype(UNSIGNED[self.program.kernel.width(name)]), self.program.threads
        if dtype == np.bool_:
            return np.zeros(threads, dtype)
        return np.full(threads * dtype.itemsize, POISON, np.uint8).view(dtype)


class Block:
    """The state of one block: registers, memories and program counters of its threads."""

    def __init__(
        self,
        program: Program,
        memory: GlobalMemory,
        parameters: np.ndarray,
        grid: tuple[int, ...],
        index: int,
        schedule: Sequence[int] | None,
        multiply_add: MultiplyAdd,
        late: bool,
    ) -> None:
        self.program, self.threads, self.index = program, program.threads, index
        self.multiply_add = multiply_add
        self.every_thread = np.arange(self.threads)
        self.clock = Clock(self.threads // WARP)
        memory.start_block(index, self.clock)
        self.spaces = {
            "global": memory,
            "shared": SharedMemory(
                program.shared_bytes, self.threads, program.unit, self.clock, memory.races, program.asynchronous
            ),
            "local": LocalMemory("local", np.full((self.threads, program.local_bytes), POISON, np.uint8)),
            "param": LocalMemory("parameter", parameters[None]),
        }
        self.registers = Registers(program)
        self.warpgroups, self.late = Warpgroups(self.threads // WARP), late
        self.barriers = Barriers()
        self.issued: dict[int, list[Callable[[], None]]] = {}  # thread -> its products that are not complete
        self.code: Instruction | None = None  # being executed, by the threads of
        self.mask: np.ndarray | None = None
        self.special = self._special_registers(grid)
        self.counters = np.zeros(self.threads, np.int64)  # index of each thread's next step
        self.waiting = np.zeros(self.threads, np.bool_)  # at a barrier
        self.polling = np.zeros(self.threads, np.bool_)  # an mbarrier, in vain: the others go on before they look again
        self.rank = (
            np.repeat(np.argsort(schedule), WARP) if schedule else None
        )  # of a thread's warp: the lowest goes first
        self.executed = 0

    @cached_property
    def tensor_memory(self) -> TensorMemory:
        return TensorMemory(self.clock, self.spaces["global"].races)

    def _special_registers(self, grid: tuple[int, ...]) -> dict[str, np.ndarray]:
        x, y, _ = grid
        position = (self.index % x, self.index // x % y, self.index // (x * y))
        axes = {"tid": (self.every_thread, 0, 0), "ntid": (self.threads, 1, 1), "ctaid": position, "nctaid": grid}
        special = {f"%{name}.{axis}": v for name, values in axes.items() for axis, v in zip("xyz", values, strict=True)}
        special |= {"%laneid": self.every_thread % WARP, "%warpid": self.every_thread // WARP}
        return {name: np.broadcast_to(value, self.threads).astype(np.uint32) for name, value in special.items()}

    def write(self, name: str, value: np.ndarray, mask: np.ndarray | None) -> None:
        self.registers[name] = value if mask is None else np.where(mask, value, self.registers[name])

    def use(self, name: str) -> np.ndarray:
        """Return a register that asynchronous instructions use, for the instruction being executed."""
        warps = range(self.threads // WARP)
        if self.mask is not None:
            warps = np.flatnonzero(self.mask.reshape(-1, WARP).any(axis=1)).tolist()
        self.warpgroups.use(name, warps, self.code)
        return self.registers[name]

    def active(self, mask: np.ndarray | None) -> np.ndarray:
        """Indices of the active threads, ascending."""
        return self.every_thread if mask is None else np.flatnonzero(mask)

    def run(self) -> None:
        """Until every thread has returned."""
        end = len(self.program.steps)
        while (alive := self.counters < end).any():
            runnable = alive & ~self.waiting
            if not runnable.any():
                self._pass_barrier(alive)
                continue
            if (runnable & ~self.polling).any():
                runnable &= ~self.polling
            else:
                self.polling[:] = False
            if self.rank is not None:
                runnable &= self.rank == self.rank[runnable].min()
            first = int(self.counters[runnable].min())
            mask = runnable & (self.counters == first)
            others = self.counters[runnable & ~mask]
            self._advance(first, int(others.min()) if others.size else end, None if mask.all() else mask)
        self.warpgroups.finish()
        if "tensor_memory" in vars(self):  # it was used
            self.tensor_memory.finish(self.index)

    def _advance(self, at: int, limit: int, mask: np.ndarray | None) -> None:
        """The threads of `mask` from step `at` to the next control instruction, or to `limit` where others wait."""
        steps, registers = self.program.steps, self.registers
        start = at
        while at < limit:
            code, execute, target = steps[at]
            taken = mask
            if code.guard is not None:
                guard = registers[code.guard]
                taken = ~guard if code.negated else guard
                taken = taken if mask is None else taken & mask
                taken = None if taken.all() else taken
            if execute is None:
                self._control(code.opcode, at, target, mask, taken)
                break
            if taken is None or code.guard is None or taken.any():
                self.code, self.mask = code, taken
                execute(self, taken)
            at += 1
        else:
            self.counters[self.active(mask)] = at
        self.executed += at - start + (at < limit)
        if self.executed > MAX_STEPS:
            raise Endless(f"block {self.index} has executed {self.executed} instructions", code.line, code.text)

    def _control(self, opcode: str, at: int, target: int, mask: np.ndarray | None, taken: np.ndarray | None) -> None:
        self.counters[self.active(mask)] = at + 1
        going = self.active(taken)
        if opcode == "bra":
            self.counters[going] = target
        elif opcode in ("ret", "exit"):
            self.counters[going] = len(self.program.steps)
        else:  # a barrier: stay there until all have come
            self.counters[going] = at
            self.waiting[going] = True

    def _pass_barrier(self, alive: np.ndarray) -> None:
        for counters in np.split(np.where(alive, self.counters, -1), self.threads // WARP):
            places = np.unique(counters[counters >= 0])
            if places.size > 1:
                code = self.program.steps[places[0]].code
                raise Diverged("threads of one warp wait at different barriers", code.line, code.text)
        self.counters[self.waiting] += 1
        self.waiting[:] = False
        self.clock.barrier()
