"""The memories of a launch: argument arrays, and a block's shared, local and parameter memory.

Every access is checked against what exists and against its own alignment; shared and global accesses are also watched
for races. Addresses and offsets are arrays over the accessing threads.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import numpy as np
import torch

from .errors import Misaligned, OutOfBounds
from .parser import Instruction
from .races import NEVER, BlockClock, Clock, Races, Watch

SHARED_BASE = 1024  # of the first shared variable: any small multiple of what swizzled layouts assume
REGION = 40  # log2 of the distance between the addresses of arguments: any offset that goes astray hits none
SHARED_WINDOW, LOCAL_WINDOW = 1 << 60, 1 << 61  # where generic addresses show them
WATCHED_BYTES = 1 << 28  # arguments that span more are not watched for races


class Bytes:
    """A byte array read and written in pieces of any width at any offset."""

    def __init__(self, data: np.ndarray) -> None:
        self.data = data
        self._pieces: dict[int, np.ndarray] = {}

    def pieces(self, width: int) -> np.ndarray:
        """Overlapping views: element i is the `width` bytes from i on."""
        if width not in self._pieces:
            shape = (max(0, self.data.size - width + 1),)
            self._pieces[width] = np.ndarray(shape, f"V{width}", buffer=self.data, strides=(1,))
        return self._pieces[width]


def units_of(offsets: np.ndarray, width: int, unit: int) -> tuple[np.ndarray, int]:
    """The units that accesses of `width` bytes cover, thread after thread, and how many each."""
    count = max(1, width // unit)
    return (offsets[:, None] // unit + np.arange(count)).ravel(), count


def check_alignment(addresses: np.ndarray, width: int, threads: np.ndarray, code: Instruction) -> None:
    if (wrong := addresses & np.array(width - 1, addresses.dtype) != 0).any():
        at = int(wrong.argmax())
        message = f"thread {threads[at]}: address {int(addresses[at]):#x} is not a multiple of {width} bytes"
        raise Misaligned(message, code.line, code.text)


class Argument:
    """A tensor argument: the bytes from its first to its last element, and which of them belong to it."""

    def __init__(self, index: int, tensor: torch.Tensor, unit: int, races: Races, blocks: BlockClock) -> None:
        self.index, self.tensor, self.unit = index, tensor, unit
        self.base = (index + 1) << REGION | tensor.data_ptr() % 256
        extents = zip(tensor.shape, tensor.stride(), strict=True)
        self.dimensions = sorted(((stride, size) for size, stride in extents if size > 1 and stride), reverse=True)
        elements = 1 + sum(stride * (size - 1) for stride, size in self.dimensions) if tensor.numel() else 0
        self.size = elements * tensor.element_size()
        memory = (ctypes.c_uint8 * self.size).from_address(tensor.data_ptr()) if self.size else b""
        self.memory = Bytes(np.frombuffer(memory, np.uint8))
        units = self.size // unit + 1 if self.size <= WATCHED_BYTES else 0
        self.watched = units > 0
        where = f"argument {index}"
        self.within_block: Watch | None = None
        self.between_blocks = Watch(where, units, unit, blocks, races, blocks=True)
        self._new_watch = lambda clock: Watch(where, units, unit, clock, races)

    def start_block(self, clock: Clock) -> None:
        self.within_block = self._new_watch(clock)

    def withhold(self, thread: int) -> None:
        """Order nothing after what other threads stored since the block's last barrier: that thread takes a ticket."""
        if self.watched:
            unordered = self.within_block.marks["write"].since_barrier_by_others(thread)
            self.between_blocks.marks["write"].stamp[unordered] = NEVER

    def inside(self, offsets: np.ndarray, width: int) -> np.ndarray:
        """Whether each access lies on elements of the tensor, not in the gaps of a strided one."""
        inside = (offsets >= 0) & (offsets + width <= self.size)
        if self.size == self.tensor.numel() * self.tensor.element_size():
            return inside
        for end in (offsets, offsets + (width - 1)):
            rest = end // self.tensor.element_size()
            for stride, size in self.dimensions:
                inside &= (index := rest // stride) < size
                rest = rest - index * stride
            inside &= rest == 0
        return inside


class GlobalMemory:
    """The argument arrays of one launch."""

    def __init__(self, tensors: dict[int, torch.Tensor], unit: int, blocks: int) -> None:
        self.races = Races()
        self.blocks = BlockClock(blocks)
        self.arguments = {i: Argument(i, tensor, unit, self.races, self.blocks) for i, tensor in tensors.items()}
        self.block = 0

    def start_block(self, block: int, clock: Clock) -> None:
        self.block = block
        self.blocks.start_block()
        for argument in self.arguments.values():
            argument.start_block(clock)

    def load(self, code: Instruction, threads: np.ndarray, addresses: np.ndarray, width: int) -> np.ndarray:
        data = np.empty(threads.size, f"V{width}")
        for argument, which, offsets in self._access("read", code, threads, addresses, width):
            data[which] = argument.memory.pieces(width)[offsets]
        return data

    def store(self, code: Instruction, threads: np.ndarray, addresses: np.ndarray, data: np.ndarray) -> None:
        for argument, which, offsets in self._access("write", code, threads, addresses, data.itemsize, data):
            pieces = argument.memory.pieces(data.itemsize)
            pieces[offsets] = data[which]
            if argument.watched:
                argument.within_block.check_stored(pieces[offsets] != data[which], offsets, threads[which], code)

    def atomic(self, code: Instruction, threads: np.ndarray, addresses: np.ndarray, dtype: np.dtype) -> Iterator:
        """(array of numbers, which of the threads update it, index in it of each), checked and recorded."""
        for argument, which, offsets in self._access("atomic", code, threads, addresses, dtype.itemsize):
            if "acq_rel" in code.modifiers:
                self._ticket(threads)
            whole = argument.memory.data[: argument.size // dtype.itemsize * dtype.itemsize]
            yield whole.view(dtype), which, offsets // dtype.itemsize

    def _ticket(self, threads: np.ndarray) -> None:
        for argument in self.arguments.values():
            argument.withhold(int(threads[0]))
        self.blocks.ticket(self.block)

    def _access(
        self,
        kind: str,
        code: Instruction,
        threads: np.ndarray,
        addresses: np.ndarray,
        width: int,
        data: np.ndarray | None = None,
    ) -> Iterator:
        check_alignment(addresses, width, threads, code)
        regions = (addresses >> np.uint64(REGION)).astype(np.int64) - 1
        for index in [int(regions[0])] if (regions == regions[0]).all() else np.unique(regions):
            which = np.flatnonzero(regions == index)
            argument = self.arguments.get(int(index))
            if argument is None:
                self._stray(code, threads[which], addresses[which], np.zeros(which.size, bool), width)
            offsets = (addresses[which] - np.uint64(argument.base)).view(np.int64)
            inside = argument.inside(offsets, width)
            if not inside.all():
                self._stray(code, threads[which], addresses[which], inside, width)
            if argument.watched:
                units, count = units_of(offsets, width, argument.unit)
                same = None if data is None else argument.memory.pieces(width)[offsets] == data[which]
                same = None if same is None else np.repeat(same, count)
                argument.within_block.check(kind, units, np.repeat(threads[which], count), code, same)
                argument.between_blocks.check(kind, units, np.full(units.size, self.block), code, same)
            yield argument, which, offsets

    def _stray(self, code: Instruction, threads, addresses, inside, width: int) -> None:
        at = int(inside.argmin())
        address = int(addresses[at])
        message = f"block {self.block}, thread {threads[at]}: {width} bytes at {address:#x} belong to no argument"
        if self.arguments:
            near = min(self.arguments.values(), key=lambda a: max(a.base - address, address - a.base - a.size))
            shape = tuple(near.tensor.shape)
            message += f" (byte {address - near.base} of argument {near.index}: shape {shape}, {near.size} bytes)"
        raise OutOfBounds(message, code.line, code.text)


class LocalMemory:
    """Flat memory of `size` bytes for each thread, or one for all of them (parameters)."""

    def __init__(self, name: str, data: np.ndarray) -> None:
        self.name, self.copies, self.size = name, data.shape[0], data.shape[1]
        self.memory = Bytes(data.reshape(-1))

    def _offsets(self, code: Instruction, threads: np.ndarray, addresses: np.ndarray, width: int) -> np.ndarray:
        check_alignment(addresses, width, threads, code)
        offsets = addresses.astype(np.int64)
        if (wrong := (offsets < 0) | (offsets + width > self.size)).any():
            at = int(wrong.argmax())
            message = f"thread {threads[at]}: byte {offsets[at]} of {self.size} bytes of {self.name} memory"
            raise OutOfBounds(message, code.line, code.text)
        return offsets + (threads * self.size if self.copies > 1 else 0)

    def load(self, code: Instruction, threads: np.ndarray, addresses: np.ndarray, width: int) -> np.ndarray:
        return self.memory.pieces(width)[self._offsets(code, threads, addresses, width)]

    def store(self, code: Instruction, threads: np.ndarray, addresses: np.ndarray, data: np.ndarray) -> None:
        self.memory.pieces(data.itemsize)[self._offsets(code, threads, addresses, data.itemsize)] = data
