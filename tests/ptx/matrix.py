"""Tensor-core instructions of one warp: mma.sync and the ldmatrix/stmatrix that feed it."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from .convert import tf32_truncated
from .fragments import pack_c, unpack_a, unpack_b, unpack_c
from .program import Code, Execute, instruction
from .races import WARP
from .types import TYPES
from .warp import active_warps

FORMS = {  # (shape, types of A and B) -> type in which operands are read
    ("m16n8k4", "tf32"): "f32",
    ("m16n8k8", "tf32"): "f32",
    ("m16n8k8", "f16"): "f16x2",
    ("m16n8k16", "f16"): "f16x2",
    ("m16n8k8", "bf16"): "bf16x2",
    ("m16n8k16", "bf16"): "bf16x2",
    ("m8n8k4", "f64"): "f64",
    ("m16n8k4", "f64"): "f64",
    ("m16n8k8", "f64"): "f64",
    ("m16n8k16", "f64"): "f64",
}


def multiply_add(a: np.ndarray, b: np.ndarray, c: np.ndarray, kind: str) -> np.ndarray:
    """Return A B + C in NumPy's arithmetic: what matrix units compute unless `run` is given another function.

    Args:
        a: [..., rows, depth], as the unit reads it: tf32 already truncated.
        b: [..., depth, columns].
        c: [..., rows, columns], float32 or float64; products and sums have its type.
        kind: type of A and B: "tf32", "bf16", "f16" or "f64".
    """
    return a.astype(c.dtype) @ b.astype(c.dtype) + c


@instruction("mma")
def mma(code: Code) -> Execute:
    """D = A B + C, computed by the block's `multiply_add`."""
    sync, aligned, shape, *layout, result, a_type, b_type, c_type = code.modifiers
    expected = ("sync", "aligned", ["row", "col"], "f64" if a_type == "f64" else "f32")
    form = FORMS.get((shape, a_type))
    if form is None or (sync, aligned, layout, result) != expected or a_type != b_type or c_type != result:
        raise code.unsupported(".".join(["mma", *code.modifiers]))
    rows = int(re.match(r"m(\d+)", shape)[1])
    operand = tf32_truncated if a_type == "tf32" else _same
    d, a, b, c = (getattr(vector, "items", (vector,)) for vector in code.operands)
    a_of, b_of = (_fragment(code, registers, form) for registers in (a, b))
    c_of, writes = _fragment(code, c, result), [code.writer(register, TYPES[result]) for register in d]

    def execute(block, mask):
        active_warps(block, mask, code)
        left = unpack_a(operand(a_of(block)), rows, _width(form))
        right = unpack_b(operand(b_of(block)), _width(form))
        total = block.multiply_add(left, right, unpack_c(c_of(block), rows), a_type)
        for register, write in zip(pack_c(total), writes, strict=True):
            write(block, register, mask)

    return execute


def _same(value: np.ndarray) -> np.ndarray:
    return value


def _width(form: str) -> int:
    return 2 if form.endswith("x2") else 1


def _fragment(code: Code, registers: tuple, form: str) -> Callable:
    """The numbers in some registers, [registers, threads * width]."""
    reads = [code.reader(register, TYPES[form]) for register in registers]
    return lambda block: np.stack([read(block) for read in reads])


def _matrices(code: Code) -> tuple[int, bool]:
    sync, aligned, shape, count, *rest = code.modifiers
    if (sync, aligned, shape) != ("sync", "aligned", "m8n8") or count not in ("x1", "x2", "x4"):
        raise code.unsupported(".".join([code.opcode, *code.modifiers]))
    if rest not in (["shared", "b16"], ["trans", "shared", "b16"]):
        raise code.unsupported(".".join([code.opcode, *code.modifiers]))
    return int(count[1:]), rest[0] == "trans"


def _row_threads(block, mask, count: int, code: Code) -> np.ndarray:
    """The threads that give row addresses: the first 8 of a warp for each matrix."""
    return (active_warps(block, mask, code)[:, None] * WARP + np.arange(8 * count)).ravel()


def _transposed(rows: np.ndarray) -> np.ndarray:
    """[warps, matrices, 8 rows, 8 halves], transposed."""
    return np.ascontiguousarray(rows.swapaxes(-1, -2))


@instruction("ldmatrix")
def ldmatrix(code: Code) -> Execute:
    count, transposed = _matrices(code)
    address = code.address(code.operands[1])
    writes = [code.writer(item, TYPES["b32"]) for item in getattr(code.operands[0], "items", (code.operands[0],))]

    def execute(block, mask):
        threads = _row_threads(block, mask, count, code)
        rows = block.spaces["shared"].load_rows(code.instruction, threads, address(block)[threads])
        rows = rows.view(np.uint16).reshape(-1, count, 8, 8)
        rows = _transposed(rows) if transposed else rows
        matrices = rows.view(np.uint32).transpose(1, 0, 2, 3).reshape(count, -1)  # [matrices, active threads]
        active = block.active(mask)
        for matrix, write in zip(matrices, writes, strict=True):
            value = np.zeros(block.threads, np.uint32)
            value[active] = matrix
            write(block, value, mask)

    return execute


@instruction("stmatrix")
def stmatrix(code: Code) -> Execute:
    count, transposed = _matrices(code)
    address = code.address(code.operands[0])
    reads = [code.reader(item, TYPES["b32"]) for item in getattr(code.operands[1], "items", (code.operands[1],))]

    def execute(block, mask):
        threads = _row_threads(block, mask, count, code)
        active = block.active(mask)
        words = np.stack([read(block)[active] for read in reads], axis=1)  # [active threads, matrices]
        rows = np.ascontiguousarray(words.reshape(-1, WARP, count).swapaxes(1, 2)).view(np.uint16)
        rows = rows.reshape(-1, count, 8, 8)
        rows = _transposed(rows) if transposed else rows
        data = rows.reshape(-1, 8).view("V16").ravel()
        block.spaces["shared"].store(code.instruction, threads, address(block)[threads], data)

    return execute
