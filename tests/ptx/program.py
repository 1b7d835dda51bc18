"""A kernel made ready to execute: variables placed, operands turned into functions, instructions into steps.

Instructions register themselves in `INSTRUCTIONS` under their opcode, or under it and their first modifier where that
tells apart instructions that have little in common ("wgmma.fence"): a builder that gets the instruction as `Code` and
returns its step, a function of the block and of the active threads (None: all of them).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .memory import SHARED_BASE
from .parser import Address, Immediate, Instruction, Kernel, Operand, Register, Symbol, Vector
from .types import TYPES, UNSIGNED, Type

if TYPE_CHECKING:
    from .machine import Block

Mask = np.ndarray | None  # [threads] of bool; None: every thread of the block
Reader = Callable[["Block"], np.ndarray]
Writer = Callable[["Block", np.ndarray, Mask], None]
Execute = Callable[["Block", Mask], None]
Builder = Callable[["Code"], Execute]

INSTRUCTIONS: dict[str, Builder] = {}
SPECIAL_REGISTERS = {f"%{name}.{axis}" for name in ("tid", "ntid", "ctaid", "nctaid") for axis in "xyz"}
SPECIAL_REGISTERS |= {"%laneid", "%warpid"}
CONTROL = {"bra", "ret", "exit", "bar", "barrier"}
ASYNCHRONOUS = {"wgmma", "tcgen05"}  # they read shared memory through the async proxy


def instruction(*names: str) -> Callable[[Builder], Builder]:
    """Register a builder for the instructions named."""

    def register(builder: Builder) -> Builder:
        INSTRUCTIONS.update(dict.fromkeys(names, builder))
        return builder

    return register


def builder_of(code: Instruction) -> Builder:
    """Return the builder of an instruction.

    Raises:
        Unsupported: there is none.
    """
    for name in (".".join([code.opcode, *code.modifiers[:1]]), code.opcode):
        if name in INSTRUCTIONS:
            return INSTRUCTIONS[name]
    raise code.unsupported(code.opcode)


class Step(NamedTuple):
    code: Instruction
    execute: Execute | None  # None: control, which the machine itself does
    target: int  # index of the step that a branch goes to


class Program:
    """A kernel for blocks of `threads` threads and `dynamic_shared` bytes of `.extern .shared` memory."""

    def __init__(self, kernel: Kernel, threads: int, dynamic_shared: int) -> None:
        self.kernel, self.threads = kernel, threads
        self.unit = min([16, *(access_width(code) for code in kernel.instructions if touches_memory(code))])
        self._constants: dict[tuple[int, int], np.ndarray] = {}
        self.asynchronous = any(code.opcode in ASYNCHRONOUS for code in kernel.instructions)
        self.watched = frozenset(name for code in kernel.instructions for name in registers_in_flight(code))
        self._place_variables(dynamic_shared)
        self.steps = [self._step(code) for code in kernel.instructions]

    def _place_variables(self, dynamic_shared: int) -> None:
        ends = {"shared": SHARED_BASE, "local": 0, "param": 0}
        self.addresses: dict[str, int] = {}
        sized = sorted(self.kernel.variables.items(), key=lambda item: item[1][2] == 0)  # dynamic shared memory last
        sizes = {name: TYPES[kind].bits // 8 for name, kind in self.kernel.parameters.items()}
        parameters = [(name, ("param", size, size)) for name, size in sizes.items()]
        for name, (space, alignment, size) in [*sized, *parameters]:
            self.addresses[name] = -(-ends[space] // alignment) * alignment
            ends[space] = self.addresses[name] + size
        self.shared_bytes = ends["shared"] - SHARED_BASE + dynamic_shared
        self.local_bytes, self.parameter_bytes = ends["local"], ends["param"]

    def _step(self, code: Instruction) -> Step:
        if code.opcode == "bra":
            return Step(code, None, self.kernel.labels[code.operands[0].name])
        if code.opcode in CONTROL and code.modifiers[:1] != ("warp",):
            if code.opcode.startswith("bar") and ("sync" not in code.modifiers or code.operands != (Immediate(0),)):
                raise code.unsupported("a barrier other than bar.sync 0 of the whole block")
            return Step(code, None, -1)
        return Step(code, builder_of(code)(Code(code, self)), -1)

    def constant(self, value: int, bits: int) -> np.ndarray:
        value &= (1 << bits) - 1
        if (value, bits) not in self._constants:
            self._constants[value, bits] = np.full(self.threads, value, UNSIGNED[bits])
            self._constants[value, bits].flags.writeable = False
        return self._constants[value, bits]


class Code:
    """An instruction in its program; its operands become functions of the block."""

    def __init__(self, instruction: Instruction, program: Program) -> None:
        self.instruction, self.program = instruction, program
        self.opcode, self.modifiers, self.operands = instruction.opcode, instruction.modifiers, instruction.operands

    def unsupported(self, what: str) -> Exception:
        return self.instruction.unsupported(what)

    def accept(self, *known: str) -> None:
        """Refuse the instruction if it has a modifier that is not known."""
        for modifier in self.modifiers:
            if modifier not in known:
                raise self.unsupported(f"{self.opcode} with .{modifier}")

    def type(self, name: str) -> Type:
        if name not in TYPES:
            raise self.unsupported(f"type {name}")
        return TYPES[name]

    def reader(self, operand: Operand | None, kind: Type) -> Reader:
        """The numbers in an operand, [threads] (twice as many for packed types)."""
        match operand:
            case Register(name) if name in self.program.watched:
                return lambda block: kind.decode(block.use(name))
            case Register(name) if self.program.kernel.declares(name):
                return lambda block: kind.decode(block.registers[name])
            case Register(name) | Symbol(name) if name in SPECIAL_REGISTERS:
                return lambda block: kind.decode(block.special[name])
            case Vector(items):
                part, whole = TYPES[f"b{kind.bits // len(items)}"], UNSIGNED[kind.bits]
                pieces = [self.reader(item, part) for item in items]
                return lambda block: kind.decode(np.stack([read(block) for read in pieces], 1).reshape(-1).view(whole))
            case Immediate(bits):
                constant = kind.decode(self.program.constant(bits, kind.bits))
            case Symbol(name) if name in self.program.addresses:
                constant = kind.decode(self.program.constant(self.program.addresses[name], kind.bits))
            case _:
                raise self.unsupported(f"operand {operand}")
        return lambda block: constant

    def writer(self, operand: Operand | None, kind: Type) -> Writer:
        """A function that puts numbers into a register, or the pieces of each into a vector of registers."""
        match operand:
            case None:
                return lambda block, value, mask: None
            case Register(name) if self.program.kernel.declares(name):
                width = self.program.kernel.width(name)
                if name in self.program.watched:
                    return lambda block, value, mask: (
                        block.use(name),
                        block.write(name, kind.encode(value, width), mask),
                    )
                return lambda block, value, mask: block.write(name, kind.encode(value, width), mask)
            case Vector(items):
                part = TYPES[f"b{kind.bits // len(items)}"]
                writers = [self.writer(item, part) for item in items]

                def write(block: Block, value: np.ndarray, mask: Mask) -> None:
                    pieces = kind.encode(value, kind.bits).view(part.dtype).reshape(-1, len(writers))
                    for piece, write_piece in zip(np.ascontiguousarray(pieces.T), writers, strict=True):
                        write_piece(block, piece, mask)

                return write
        raise self.unsupported(f"a result in {operand}")

    def address(self, operand: Operand | None) -> Reader:
        """Addresses, [threads] of uint64."""
        if not isinstance(operand, Address):
            raise self.unsupported(f"{operand} as an address")
        base = self.reader(operand.base, TYPES["u64"])
        offset = np.uint64(operand.offset & (1 << 64) - 1)
        return lambda block: base(block) + offset


def touches_memory(code: Instruction) -> bool:
    return code.opcode in ("ld", "st", "cp", "atom", "red") and any(isinstance(o, Address) for o in code.operands)


def registers_in_flight(code: Instruction) -> tuple[str, ...]:
    """Return the registers that an asynchronous instruction uses until it is waited for."""
    if code.opcode != "wgmma":
        return ()
    vectors = [operand.items for operand in code.operands if isinstance(operand, Vector)]
    return tuple(item.name for items in vectors for item in items)


def vector_length(code: Instruction) -> int:
    return next((int(modifier[1:]) for modifier in code.modifiers if modifier in ("v2", "v4", "v8")), 1)


def access_width(code: Instruction) -> int:
    """Bytes that each thread touches."""
    if code.opcode == "cp":
        return code.operands[2].bits
    return TYPES[code.modifiers[-1]].bits // 8 * vector_length(code)
