"""tcgen05: products with accumulators in tensor memory, issued by one thread, and loads and stores of that memory."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from .convert import tf32_truncated
from .descriptors import PIECE, Places, decode_sm100, places
from .errors import Misused
from .parser import Address
from .program import Code, Execute, instruction
from .races import WARP
from .types import TYPES, bfloat16_numbers
from .warp import active_warps

SIZES = {"tf32": 4, "f16": 2}  # kind -> bytes of an element
TYPES_OF_KIND = {("tf32", 2): "tf32", ("f16", 0): "f16", ("f16", 1): "bf16"}
DEPTH_BYTES = 32  # of one product
ACCUMULATOR_F32 = 1


class Form(NamedTuple):
    """What the 32-bit instruction descriptor says of a product."""

    type: str  # of A and B
    rows: int
    columns: int
    negative: bool  # A B is subtracted
    a_depth_major: bool
    b_depth_major: bool


def decode_form(bits: int, kind: str) -> Form:
    """Return what an instruction descriptor says.

    Raises:
        ValueError: sparsity, saturation, mixed types, accumulators other than float32 or reserved bits.
    """

    def field(first: int, count: int) -> int:
        return bits >> first & (1 << count) - 1

    a_type, b_type = field(7, 3), field(10, 3)
    type_ = TYPES_OF_KIND.get((kind, a_type))
    if field(0, 4) or field(6, 1) or field(23, 1) or field(29, 3) or field(4, 2) != ACCUMULATOR_F32:
        raise ValueError(f"instruction descriptor {bits:#x}")
    if type_ is None or a_type != b_type:
        raise ValueError(f"instruction descriptor {bits:#x}: types {a_type} and {b_type}")
    signs, transposes = field(13, 1) ^ field(14, 1), (field(15, 1), field(16, 1))
    return Form(type_, field(24, 5) << 4, field(17, 6) << 3, bool(signs), not transposes[0], not transposes[1])


def lanes_of(rows: int, first: int) -> np.ndarray:
    """Return the lane of each row of a product: 16 of each 32 lanes if it has 64 rows."""
    row = np.arange(rows)
    return first + (row if rows == 128 else row // 16 * 32 + row % 16)


@instruction("tcgen05.mma")
class Product:
    """tcgen05.mma [d], a-descriptor | [a], b-descriptor, instruction descriptor, enable-d;"""

    def __init__(self, code: Code) -> None:
        self.code = code
        if code.modifiers[:2] != ("mma", "cta_group::1") or len(code.modifiers) != 3 or len(code.operands) != 5:
            raise code.unsupported(".".join([code.opcode, *code.modifiers]))
        self.kind = code.modifiers[2].removeprefix("kind::")
        if self.kind not in SIZES:
            raise code.unsupported(f"kind {self.kind}")
        self.size = SIZES[self.kind]
        d, a, b, form, enable = code.operands
        self.d, self.in_memory = code.address(d), isinstance(a, Address)
        self.a = code.address(a) if self.in_memory else code.reader(a, TYPES["b64"])
        self.b, self.form = code.reader(b, TYPES["b64"]), code.reader(form, TYPES["b32"])
        self.enable = code.reader(enable, TYPES["pred"])

    def __call__(self, block, mask) -> None:
        for thread in block.active(mask).tolist():
            self._issue(block, thread)

    def _issue(self, block, thread: int) -> None:
        code, memory, shared = self.code.instruction, block.tensor_memory, block.spaces["shared"]
        d, a, b, bits, enable = (int(read(block)[thread]) for read in (self.d, self.a, self.b, self.form, self.enable))
        try:
            form = decode_form(bits, self.kind)
            b_places = self._places(b, form.columns, form.b_depth_major)
            a_places = None if self.in_memory else self._places(a, form.rows, form.a_depth_major)
        except ValueError as error:
            raise self.code.unsupported(str(error)) from None
        pieces = [each.pieces for each in (a_places, b_places) if each]
        units = shared.begin_async_read(code, [thread // WARP], np.concatenate(pieces), PIECE)
        lanes, columns = lanes_of(form.rows, d >> 16)[:, None], (d & 0xFFFF) + np.arange(form.columns)
        a_cells = lanes_of(form.rows, a >> 16)[:, None], (a & 0xFFFF) + np.arange(DEPTH_BYTES // 4)
        if self.in_memory:
            memory.begin(code, "read", *a_cells)
        memory.begin(code, "write", lanes, columns)

        def compute() -> None:
            left = self._left(block, form, a_places, a_cells)
            right = self._numbers(shared.read(b_places.elements, self.size), form.type).T
            start = memory.cells[lanes, columns].view(np.float32)
            start = start if enable else np.zeros_like(start)
            total = block.multiply_add(np.float32(-1 if form.negative else 1) * left, right, start, form.type)
            memory.cells[lanes, columns] = total.view(np.uint32)

        def complete() -> None:
            if block.late:
                compute()
            shared.proxy.complete_read(units)
            memory.end(lanes, columns)
            if self.in_memory:
                memory.end(*a_cells)

        if not block.late:
            compute()
        block.issued.setdefault(thread, []).append(complete)

    def _places(self, descriptor: int, rows: int, depth_major: bool) -> Places:
        return places(decode_sm100(descriptor), rows, DEPTH_BYTES // self.size, self.size, depth_major)

    def _left(self, block, form: Form, a_places: Places | None, cells: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        if a_places is not None:
            return self._numbers(block.spaces["shared"].read(a_places.elements, self.size), form.type)
        words = np.ascontiguousarray(block.tensor_memory.cells[cells])
        return self._numbers(words.view(f"u{self.size}"), form.type)

    def _numbers(self, bits: np.ndarray, type_: str) -> np.ndarray:
        bits = np.ascontiguousarray(bits)
        if type_ == "bf16":
            return bfloat16_numbers(bits.view(np.uint16))
        return tf32_truncated(bits.view(np.float32)) if type_ == "tf32" else bits.view(np.float16)


@instruction("tcgen05.commit")
def commit(code: Code) -> Execute:
    """When all that a thread has issued so far has completed, this arrives at an mbarrier."""
    code.accept("commit", "cta_group::1", "mbarrier::arrive::one", "shared::cluster", "b64")
    address = code.address(code.operands[0])

    def execute(block, mask):
        threads = block.active(mask)
        places = address(block)[threads]
        list(block.spaces["shared"].atomic(code.instruction, threads, places, np.dtype(np.uint64)))
        for thread, place in zip(threads.tolist(), places.tolist(), strict=True):
            issued = block.issued.setdefault(thread, [])
            block.barriers.at(place, code.instruction).arriving.append(partial(_complete, issued, list(issued)))

    return execute


def _complete(issued: list[Callable[[], None]], work: list[Callable[[], None]]) -> None:
    """Complete what has not been completed of some work, in the order of its issue."""
    for complete in work:
        if complete in issued:
            issued.remove(complete)
            complete()


def _cells(code: Code, operand, split) -> Callable:
    """A function of the block and threads: lanes and columns, [threads, count], of a 16x32bx2 access."""
    shape, count = code.modifiers[3:5]
    if shape != "16x32bx2" or not re.fullmatch(r"x\d+", count) or code.modifiers[5:] != ("b32",):
        raise code.unsupported(".".join([code.opcode, *code.modifiers]))
    address, offset = code.address(operand), split.bits

    def locate(block, threads: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        base, lane = address(block)[threads].astype(np.int64), threads % WARP
        lanes = (base >> 16) + lane % 16
        columns = (base & 0xFFFF) + np.where(lane >= 16, offset, 0)
        columns = columns[:, None] + np.arange(int(count[1:]))
        return np.broadcast_to(lanes[:, None], columns.shape), columns

    return locate


@instruction("tcgen05.ld")
def ld(code: Code) -> Execute:
    locate = _cells(code, code.operands[1], code.operands[2])
    writes = [code.writer(item, TYPES["b32"]) for item in code.operands[0].items]

    def execute(block, mask):
        active_warps(block, mask, code)
        threads = block.active(mask)
        lanes, columns = locate(block, threads)
        values = np.zeros((block.threads, columns.shape[1]), np.uint32)
        values[threads] = block.tensor_memory.load(code.instruction, threads, lanes, columns)
        for write, value in zip(writes, np.ascontiguousarray(values.T), strict=True):
            write(block, value, mask)

    return execute


@instruction("tcgen05.st")
def st(code: Code) -> Execute:
    locate = _cells(code, code.operands[0], code.operands[1])
    reads = [code.reader(item, TYPES["b32"]) for item in code.operands[2].items]

    def execute(block, mask):
        active_warps(block, mask, code)
        threads = block.active(mask)
        values = np.stack([read(block)[threads] for read in reads], axis=1)
        block.tensor_memory.store(code.instruction, threads, *locate(block, threads), values)

    return execute


@instruction("tcgen05.wait::ld")
def wait_ld(code: Code) -> Execute:
    code.accept("wait::ld", "sync", "aligned")
    return lambda block, mask: block.tensor_memory.wait("read", active_warps(block, mask, code))


@instruction("tcgen05.wait::st")
def wait_st(code: Code) -> Execute:
    code.accept("wait::st", "sync", "aligned")
    return lambda block, mask: block.tensor_memory.wait("write", active_warps(block, mask, code))


@instruction("tcgen05.alloc")
def alloc(code: Code) -> Execute:
    code.accept("alloc", "cta_group::1", "sync", "aligned", "shared::cta", "b32")
    address, count = code.address(code.operands[0]), code.operands[1].bits

    def execute(block, mask):
        warps = active_warps(block, mask, code)
        if warps.size != 1:
            raise Misused("several warps allocate", code.instruction.line, code.instruction.text)
        first = block.tensor_memory.allocate(count, code.instruction)
        thread = warps * WARP
        block.spaces["shared"].store(
            code.instruction, thread, address(block)[thread], np.array([first], np.uint32).view("V4")
        )

    return execute


@instruction("tcgen05.dealloc")
def dealloc(code: Code) -> Execute:
    code.accept("dealloc", "cta_group::1", "sync", "aligned", "b32")
    address, count = code.reader(code.operands[0], TYPES["u32"]), code.operands[1].bits

    def execute(block, mask):
        thread = active_warps(block, mask, code)[0] * WARP
        block.tensor_memory.free(int(address(block)[thread]), count, code.instruction)

    return execute


@instruction("tcgen05.relinquish_alloc_permit")
def relinquish(code: Code) -> Execute:
    code.accept("relinquish_alloc_permit", "cta_group::1", "sync", "aligned")

    def execute(block, mask):
        block.tensor_memory.relinquished = True

    return execute
