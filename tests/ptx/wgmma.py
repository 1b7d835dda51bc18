"""wgmma: asynchronous products of a warpgroup's 64 rows, with operands in shared memory or, for A, in registers."""

from __future__ import annotations

import re
from functools import partial
from itertools import groupby
from typing import NamedTuple

import numpy as np

from .convert import tf32_truncated
from .descriptors import PIECE, Places, decode, places
from .errors import Diverged
from .fragments import pack_c, unpack_a, unpack_c
from .parser import Immediate, Operand, Register, Vector
from .program import Code, Execute, Reader, instruction
from .races import WARP
from .types import TYPES, bfloat16_numbers
from .warp import active_warps
from .warpgroups import WARPS, Issue, Operation

ROWS = 64  # of A and D; 16 for each warp


class Kind(NamedTuple):
    """A type of A and B."""

    depth: int  # of one instruction
    size: int  # bytes of an element
    form: str  # type of a register that holds elements of A
    transposes: bool  # operands in shared memory may have their rows as the contiguous dimension


KINDS = {
    "tf32": Kind(8, 4, "f32", transposes=False),
    "bf16": Kind(16, 2, "bf16x2", transposes=True),
    "f16": Kind(16, 2, "f16x2", transposes=True),
}


@instruction("wgmma.fence")
def fence(code: Code) -> Execute:
    code.accept("fence", "sync", "aligned")
    return lambda block, mask: block.warpgroups.fence(_warps(block, mask, code))


@instruction("wgmma.commit_group")
def commit_group(code: Code) -> Execute:
    code.accept("commit_group", "sync", "aligned")
    return lambda block, mask: block.warpgroups.commit(_warps(block, mask, code))


@instruction("wgmma.wait_group")
def wait_group(code: Code) -> Execute:
    code.accept("wait_group", "sync", "aligned")
    newest = code.operands[0].bits
    return lambda block, mask: block.warpgroups.wait(_warps(block, mask, code), newest)


@instruction("wgmma.mma_async")
class Product:
    """wgmma.mma_async d, a, b-descriptor, scale-d, imm-scale-a, imm-scale-b[, imm-trans-a][, imm-trans-b];"""

    def __init__(self, code: Code) -> None:
        self.code = code
        shape = re.fullmatch(r"m64n(\d+)k(\d+)", code.modifiers[3])
        self.type = code.modifiers[-1]
        kind = KINDS.get(self.type)
        expected = ("mma_async", "sync", "aligned", code.modifiers[3], "f32", self.type, self.type)
        if kind is None or shape is None or code.modifiers != expected or int(shape[2]) != kind.depth:
            raise code.unsupported(".".join(["wgmma", *code.modifiers]))
        self.kind, self.columns = kind, int(shape[1])
        d, a, b, scale, *immediates = code.operands
        self.accumulators, self.inputs = _names(d), _names(a) if isinstance(a, Vector) else ()
        self.a_descriptor = None if self.inputs else code.reader(a, TYPES["b64"])
        self.b_descriptor, self.scale = code.reader(b, TYPES["b64"]), code.reader(scale, TYPES["pred"])
        self._read_immediates(immediates)
        if len(self.accumulators) != self.columns // 2 or len(self.inputs) not in (0, 4) or self.columns % 8:
            raise code.unsupported("a number of registers that does not match the shape")

    def _read_immediates(self, immediates: list[Operand | None]) -> None:
        """The signs of A and B, then whether each of them in shared memory is transposed."""
        shared_operands = 1 if self.inputs else 2
        expected = 2 + shared_operands * self.kind.transposes
        if len(immediates) != expected or not all(isinstance(item, Immediate) for item in immediates):
            raise self.code.unsupported(f"wgmma with {len(immediates)} immediates where {expected} are expected")
        sign_a, sign_b, *transposed = (item.bits for item in immediates)
        if {sign_a, sign_b} - {1, -1} or set(transposed) - {0, 1}:
            raise self.code.unsupported("an immediate with that value")
        self.sign = np.float32(sign_a * sign_b)
        *a_transposed, b_transposed = map(bool, transposed or [False] * shared_operands)
        self.a_depth_major, self.b_depth_major = not any(a_transposed), not b_transposed

    def __call__(self, block, mask) -> None:
        """Issue the operation for each group of warps."""
        warps = _warps(block, mask, self.code)
        if block.threads % (WARPS * WARP):
            code = self.code.instruction
            raise Diverged("wgmma in a block without whole groups of four warps", code.line, code.text)
        for _, members in groupby(warps, lambda warp: warp // WARPS):
            self._issue(block, list(members))

    def _issue(self, block, warps: list[int]) -> None:
        code, shared = self.code.instruction, block.spaces["shared"]
        a, b, scale = (self._uniform(block, read, warps) for read in (self.a_descriptor, self.b_descriptor, self.scale))
        a_places = None if self.a_descriptor is None else self._places(a, ROWS, self.a_depth_major)
        b_places = self._places(b, self.columns, self.b_depth_major)
        pieces = np.concatenate([places.pieces for places in (a_places, b_places) if places])
        units = shared.begin_async_read(code, warps, pieces, PIECE)
        compute = partial(self._compute, block, a_places, b_places, bool(scale))

        def complete(done: list[int]) -> None:
            if block.late:
                compute(done)
            shared.proxy.end_read(code, done, units)

        issue = Issue(code.line, (a, b, scale))
        block.warpgroups.issue(Operation(code, issue, self.accumulators, self.inputs, complete), warps)
        if not block.late:
            compute(warps)

    def _uniform(self, block, read: Reader | None, warps: list[int]) -> int:
        """Return the value of an operand that the threads of a group must agree in; 0 if there is none."""
        if read is None:
            return 0
        values = read(block).reshape(-1, WARP)[warps]
        if (values != values[0, 0]).any():
            code = self.code.instruction
            raise Diverged("threads of a warpgroup differ in a descriptor or predicate", code.line, code.text)
        return int(values[0, 0])

    def _places(self, descriptor: int, rows: int, depth_major: bool) -> Places:
        try:
            return places(decode(descriptor), rows, self.kind.depth, self.kind.size, depth_major)
        except ValueError as error:
            raise self.code.unsupported(str(error)) from None

    def _compute(self, block, a: Places | None, b: Places, scale: bool, warps: list[int]) -> None:
        """D = A B + D, or A B, for some warps of a group; warp w has rows 16 (w % 4) to 16 (w % 4) + 15."""
        if a is None:
            left = self._register_operand(block)[warps]
        else:
            left = self._shared_operand(block, a).reshape(WARPS, ROWS // WARPS, -1)[[warp % WARPS for warp in warps]]
        right = self._shared_operand(block, b).T
        right = np.broadcast_to(right, (len(warps), *right.shape))
        numbers = np.stack([block.registers[name] for name in self.accumulators]).view(np.float32)
        total = unpack_c(numbers, ROWS // WARPS)
        start = total[warps] if scale else np.zeros_like(total[warps])
        total[warps] = block.multiply_add(self.sign * left, right, start, self.type)
        mask = None if len(warps) == len(total) else np.isin(block.every_thread // WARP, warps)
        for name, value in zip(self.accumulators, pack_c(total).view(np.uint32), strict=True):
            block.write(name, value, mask)

    def _shared_operand(self, block, places: Places) -> np.ndarray:
        """Return an operand in shared memory, [rows, depth]."""
        bits = np.ascontiguousarray(block.spaces["shared"].read(places.elements, self.kind.size))
        if self.type == "bf16":
            return bfloat16_numbers(bits.view(np.uint16))
        return tf32_truncated(bits.view(np.float32)) if self.type == "tf32" else bits.view(np.float16)

    def _register_operand(self, block) -> np.ndarray:
        """Return A from registers, [warps, 16, depth]."""
        numbers = np.stack([TYPES[self.kind.form].decode(block.registers[name]) for name in self.inputs])
        return unpack_a(tf32_truncated(numbers) if self.type == "tf32" else numbers, ROWS // WARPS, 4 // self.kind.size)


def _warps(block, mask, code: Code) -> list[int]:
    return active_warps(block, mask, code).tolist()


def _names(operand: Operand | None) -> tuple[str, ...]:
    assert isinstance(operand, Vector)
    return tuple(item.name for item in operand.items if isinstance(item, Register))
