"""mbarrier objects in shared memory, and the asynchronous work whose completion arrives at them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from .errors import Endless, Misused
from .parser import Instruction
from .program import Code, Execute, instruction
from .types import TYPES

SHARED = ("shared::cta", "shared")  # the same: PTX ISA, "State Spaces", on sub-qualifiers
POLLS = 10_000  # of one barrier in vain, after which nothing will complete it
OBJECT = np.zeros(1, "V8")  # what an initialised barrier looks like to a load: no format is promised


@dataclass
class Barrier:
    """Expected and pending arrivals, phase, and what completes when a thread next looks."""

    count: int
    pending: int
    phase: int = 0
    arriving: list[Callable[[], None]] = field(default_factory=list)  # work that arrives once it has completed
    polls: int = 0

    def poll(self, parity: int) -> bool:
        """Complete the work committed so far; return whether the phase of that parity has ended."""
        work, self.arriving = self.arriving, []
        for complete in work:
            complete()
            self.pending -= 1
            if self.pending == 0:
                self.phase, self.pending = self.phase + 1, self.count
        self.polls = 0 if work else self.polls + 1
        return self.phase % 2 != parity


class Barriers:
    """The barriers of a block by address."""

    def __init__(self) -> None:
        self.objects: dict[int, Barrier] = {}

    def at(self, address: int, code: Instruction) -> Barrier:
        """Return a barrier.

        Raises:
            Misused: none was initialised there.
        """
        if address not in self.objects:
            raise Misused(f"no mbarrier at {address:#x}", code.line, code.text)
        return self.objects[address]


@instruction("mbarrier.init")
def init(code: Code) -> Execute:
    code.accept("init", *SHARED, "b64")
    address, count = code.address(code.operands[0]), code.reader(code.operands[1], TYPES["u32"])

    def execute(block, mask):
        threads = block.active(mask)
        places = address(block)[threads]
        block.spaces["shared"].store(code.instruction, threads, places, np.repeat(OBJECT, threads.size))
        for place, arrivals in zip(places.tolist(), count(block)[threads].tolist(), strict=True):
            block.barriers.objects[place] = Barrier(arrivals, arrivals)

    return execute


@instruction("mbarrier.inval")
def inval(code: Code) -> Execute:
    code.accept("inval", *SHARED, "b64")
    address = code.address(code.operands[0])

    def execute(block, mask):
        threads = block.active(mask)
        places = address(block)[threads]
        block.spaces["shared"].store(code.instruction, threads, places, np.repeat(OBJECT, threads.size))
        for place in places.tolist():
            if block.barriers.at(place, code.instruction).arriving:
                raise Misused("work is still to arrive", code.instruction.line, code.instruction.text)
            del block.barriers.objects[place]

    return execute


@instruction("mbarrier.try_wait")
def try_wait(code: Code) -> Execute:
    code.accept("try_wait", "parity", *SHARED, "b64")
    write, address = code.writer(code.operands[0], TYPES["pred"]), code.address(code.operands[1])
    parity = code.reader(code.operands[2], TYPES["u32"])

    def execute(block, mask):
        threads = block.active(mask)
        places, parities = address(block)[threads], parity(block)[threads]
        list(block.spaces["shared"].atomic(code.instruction, threads, places, np.dtype(np.uint64)))
        done = np.zeros(block.threads, bool)
        for place in np.unique(places).tolist():
            barrier = block.barriers.at(place, code.instruction)
            for wanted in np.unique(parities[places == place]).tolist():
                done[threads[(places == place) & (parities == wanted)]] = barrier.poll(wanted)
            if barrier.polls > POLLS:
                message = f"block {block.index} waits for an mbarrier that nothing arrives at"
                raise Endless(message, code.instruction.line, code.instruction.text)
        block.polling[threads] = ~done[threads]
        write(block, done, mask)

    return execute
