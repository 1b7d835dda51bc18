"""Loads, stores, atomics and asynchronous copies."""

from __future__ import annotations

import numpy as np

from .memory import LOCAL_WINDOW, SHARED_WINDOW, check_alignment
from .parser import Vector
from .program import Code, Execute, instruction, vector_length
from .types import TYPES
from .warp import active_warps

SPACES = ("global", "shared", "local", "param")
ORDERING = ("weak", "relaxed", "acquire", "release", "acq_rel", "volatile", "cta", "gpu", "sys", "nc")
CACHING = ("ca", "cg", "cs", "cv", "lu", "wb", "wt", "L1::evict_last", "L1::evict_first", "L1::evict_normal")
CACHING += ("L1::no_allocate", "L2::64B", "L2::128B", "L2::256B", "aligned", "cta")


def locate(code: Code, operand):
    """A function of the block and the active threads: the memory and the addresses in it."""
    address = code.address(operand)
    modifiers = (modifier.removesuffix("::cta") for modifier in code.modifiers)
    space = next((modifier for modifier in modifiers if modifier in SPACES), None)
    if space:
        return lambda block, threads: (block.spaces[space], address(block)[threads])

    def generic(block, threads):
        addresses = address(block)[threads]
        for name, window in (("local", LOCAL_WINDOW), ("shared", SHARED_WINDOW)):
            if addresses[0] >= window:
                return block.spaces[name], addresses - np.uint64(window)
        return block.spaces["global"], addresses

    return generic


def check_modifiers(code: Code, *more: str) -> None:
    code.accept(*SPACES, "shared::cta", *ORDERING, *CACHING, "v2", "v4", "v8", *more, code.modifiers[-1])


def registers_of(operand) -> tuple:
    return operand.items if isinstance(operand, Vector) else (operand,)


@instruction("ld")
def ld(code: Code) -> Execute:
    check_modifiers(code)
    own, count = code.modifiers[-1], vector_length(code)
    kind = TYPES[f"{'s' if own.startswith('s') else 'b'}{code.type(own).bits}"]
    memory_of = locate(code, code.operands[1])
    writes = [code.writer(item, kind) for item in registers_of(code.operands[0])]
    if len(writes) != count or len(code.operands) != 2:
        raise code.unsupported("this form of ld")
    width = kind.bits // 8 * count

    def execute(block, mask):
        threads = block.active(mask)
        memory, addresses = memory_of(block, threads)
        loaded = memory.load(code.instruction, threads, addresses, width).view(kind.dtype).reshape(-1, count)
        for part, write in zip(np.ascontiguousarray(loaded.T), writes, strict=True):
            if mask is not None:
                active, part = part, np.zeros(block.threads, kind.dtype)
                part[threads] = active
            write(block, part, mask)

    return execute


def values_of(code: Code, operand, kind, count: int):
    """A function of the block and the active threads: what they store, `count` values each, in one item a thread."""
    reads = [code.reader(item, TYPES[f"b{kind.bits}"]) for item in registers_of(operand)]
    if len(reads) != count:
        raise code.unsupported(f"{len(reads)} values in a vector of {count}")
    item = np.dtype(f"V{kind.bits // 8 * count}")
    return lambda block, threads: np.stack([read(block)[threads] for read in reads], axis=1).view(item).ravel()


@instruction("st")
def st(code: Code) -> Execute:
    check_modifiers(code)
    kind, count = code.type(code.modifiers[-1]), vector_length(code)
    memory_of = locate(code, code.operands[0])
    values = values_of(code, code.operands[1], kind, count)
    if len(code.operands) != 2:
        raise code.unsupported("this form of st")

    def execute(block, mask):
        threads = block.active(mask)
        memory, addresses = memory_of(block, threads)
        memory.store(code.instruction, threads, addresses, values(block, threads))

    return execute


ATOMICS = {
    "add": np.add,
    "min": np.fmin,
    "max": np.fmax,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
}


def atomic_function(code: Code) -> np.ufunc:
    check_modifiers(code, *ATOMICS, "noftz")
    operation = next((modifier for modifier in code.modifiers if modifier in ATOMICS), None)
    if operation is None or code.modifiers[-1] not in ("u32", "s32", "u64", "s64", "b32", "b64", "f32", "f64"):
        raise code.unsupported(".".join([code.opcode, *code.modifiers]))
    return ATOMICS[operation]


@instruction("red")
def red(code: Code) -> Execute:
    """Threads one after another, ascending; a vector one element after another."""
    function, kind, count = atomic_function(code), code.type(code.modifiers[-1]), vector_length(code)
    memory_of = locate(code, code.operands[0])
    values = values_of(code, code.operands[1], kind, count)
    size = kind.bits // 8

    def execute(block, mask):
        threads = block.active(mask)
        memory, addresses = memory_of(block, threads)
        operands = values(block, threads).view(kind.dtype).reshape(-1, count)
        check_alignment(addresses, size * count, threads, code.instruction)
        for element in range(count):
            places = addresses + np.uint64(element * size)
            for array, which, index in memory.atomic(code.instruction, threads, places, kind.dtype):
                function.at(array, index, operands[which, element])

    return execute


@instruction("atom")
def atom(code: Code) -> Execute:
    """As red, and each thread gets what was there before its own update."""
    function, kind, count = atomic_function(code), code.type(code.modifiers[-1]), vector_length(code)
    memory_of = locate(code, code.operands[1])
    values = values_of(code, code.operands[2], kind, count)
    writes = [code.writer(item, kind) for item in registers_of(code.operands[0])]
    if len(writes) != count or len(code.operands) != 3:
        raise code.unsupported("this form of atom")
    size = kind.bits // 8

    def execute(block, mask):
        threads = block.active(mask)
        memory, addresses = memory_of(block, threads)
        operands = values(block, threads).view(kind.dtype).reshape(-1, count)
        check_alignment(addresses, size * count, threads, code.instruction)
        before = np.zeros((count, block.threads), kind.dtype)
        for element in range(count):
            places = addresses + np.uint64(element * size)
            for array, which, index in memory.atomic(code.instruction, threads, places, kind.dtype):
                for place, thread in zip(index, which, strict=True):
                    before[element, threads[thread]] = array[place]
                    array[place] = function(array[place], operands[thread, element])
        for write, old in zip(writes, before, strict=True):
            write(block, old, mask)

    return execute


@instruction("cp.async")
def cp_async(code: Code) -> Execute:
    form = code.modifiers[1]
    if form == "commit_group":
        return lambda block, mask: block.spaces["shared"].commit(block.active(mask))
    if form in ("wait_group", "wait_all"):
        pending = code.operands[0].bits if form == "wait_group" else None
        return lambda block, mask: block.spaces["shared"].wait(block.active(mask), pending)
    code.accept("async", "shared", "global", *CACHING)
    return _copy(code)


def _copy(code: Code) -> Execute:
    """cp.async [shared], [global], size[, bytes to read]: the rest of `size` is filled with zeros."""
    to, source = code.address(code.operands[0]), code.address(code.operands[1])
    size = code.operands[2].bits
    wanted = code.reader(code.operands[3] if len(code.operands) > 3 else code.operands[2], TYPES["u32"])

    def execute(block, mask):
        threads = block.active(mask)
        data = np.zeros((threads.size, size), np.uint8)
        counts, addresses = wanted(block)[threads], source(block)[threads]
        for count in np.unique(counts[counts > 0]):
            which = counts == count
            loaded = block.spaces["global"].load(code.instruction, threads[which], addresses[which], int(count))
            data[which, :count] = loaded.view(np.uint8).reshape(-1, count)
        landing = to(block)[threads]
        block.spaces["shared"].copy(code.instruction, threads, landing, data.view(f"V{size}").ravel())

    return execute


@instruction("membar", "fence")
def fence(code: Code) -> Execute:
    """Only between proxies is there anything to do: memory here is sequentially consistent."""
    if code.modifiers[:2] != ("proxy", "async"):
        return lambda block, mask: None
    code.accept("proxy", "async", "shared::cta")

    def execute(block, mask):
        if proxy := block.spaces["shared"].proxy:
            proxy.visibility.fence(active_warps(block, mask, code))

    return execute


@instruction("cvta")
def cvta(code: Code) -> Execute:
    """Between a generic address and one in a space."""
    space = next((modifier for modifier in code.modifiers if modifier in SPACES), "")
    window = np.uint64({"shared": SHARED_WINDOW, "local": LOCAL_WINDOW, "global": 0}[space])
    read, write = code.reader(code.operands[1], TYPES["u64"]), code.writer(code.operands[0], TYPES["u64"])
    if "to" in code.modifiers:
        return lambda block, mask: write(block, read(block) - window, mask)
    return lambda block, mask: write(block, read(block) + window, mask)
