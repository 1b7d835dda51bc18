"""A block's shared memory, and the asynchronous copies into it.

It starts as NaN in every format. A copy by `cp.async` lands when its thread waits for its group, not before; until then
its destination is in flight, and any access to it is a race. Asynchronous matrix instructions read it through another
proxy, with rules that `async_proxy` has.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .async_proxy import AsyncProxy
from .errors import OutOfBounds
from .memory import SHARED_BASE, Bytes, check_alignment, units_of
from .parser import Instruction
from .races import SEVERAL_WARPS, WARP, Clock, Races, Watch

NAN_BYTE = 0xFF


class Copy(NamedTuple):
    code: Instruction
    threads: np.ndarray
    offsets: np.ndarray
    data: np.ndarray
    group: np.ndarray  # for each thread: the number of the group that it committed this copy to


class SharedMemory:
    def __init__(
        self, size: int, threads: int, unit: int, clock: Clock, races: Races, asynchronous: bool = False
    ) -> None:
        """Args: `asynchronous`: the program has instructions that read through the async proxy."""
        self.size, self.unit = size, unit
        self.memory = Bytes(np.full(size, NAN_BYTE, np.uint8))
        self.watch = Watch("shared", size // unit + 1, unit, clock, races)
        self.proxy = AsyncProxy(self.watch, size // unit + 1, threads // WARP, clock) if asynchronous else None
        self.in_flight = np.zeros(size // unit + 1, np.int32)  # line of the copy, 0: none
        self.copies: list[Copy] = []
        self.committed = np.zeros(threads, np.int64)  # groups committed so far, by thread

    def load(self, code: Instruction, threads: np.ndarray, addresses: np.ndarray, width: int) -> np.ndarray:
        offsets, units, count = self._locate(code, threads, addresses, width)
        self._check("read", units, np.repeat(threads, count), code)
        return self.memory.pieces(width)[offsets]

    def store(self, code: Instruction, threads: np.ndarray, addresses: np.ndarray, data: np.ndarray) -> None:
        width = data.itemsize
        offsets, units, count = self._locate(code, threads, addresses, width)
        pieces = self.memory.pieces(width)
        self._check("write", units, np.repeat(threads, count), code, np.repeat(pieces[offsets] == data, count))
        pieces[offsets] = data
        self.watch.check_stored(pieces[offsets] != data, offsets, threads, code)

    def atomic(self, code: Instruction, threads: np.ndarray, addresses: np.ndarray, dtype: np.dtype) -> Iterator:
        """As that of global memory."""
        offsets, units, count = self._locate(code, threads, addresses, dtype.itemsize)
        self._check("atomic", units, np.repeat(threads, count), code)
        whole = self.memory.data[: self.size // dtype.itemsize * dtype.itemsize]
        yield whole.view(dtype), np.arange(threads.size), offsets // dtype.itemsize

    def load_rows(self, code: Instruction, threads: np.ndarray, addresses: np.ndarray) -> np.ndarray:
        """16-byte rows whose addresses `threads` give, read for all threads of their warps (ldmatrix)."""
        offsets, units, count = self._locate(code, threads, addresses, 16)
        first = np.repeat(threads // WARP * WARP, count)
        self._check("read", units, first, code, record=False)
        self.watch.marks["read"].touch(units, first, code.line, first + (WARP - 1))
        return self.memory.pieces(16)[offsets]

    def begin_async_read(self, code: Instruction, warps: list[int], addresses: np.ndarray, width: int) -> np.ndarray:
        """Check that some warps together can read `width` bytes at each address; return the units to `end_read`."""
        assert self.proxy is not None
        threads = np.full(addresses.size, warps[0] * WARP)
        units = self._locate(code, threads, addresses, width)[1]
        self._check("read", units, np.full(units.size, SEVERAL_WARPS), code, record=False)
        self.proxy.begin_read(code, warps, units)
        return units

    def read(self, addresses: np.ndarray, width: int) -> np.ndarray:
        """Return the bytes at addresses that were checked before."""
        return self.memory.pieces(width)[addresses - SHARED_BASE]

    def copy(self, code: Instruction, threads: np.ndarray, addresses: np.ndarray, data: np.ndarray) -> None:
        """Begin an asynchronous copy of `data` by each thread."""
        offsets, units, count = self._locate(code, threads, addresses, data.itemsize)
        self._check("write", units, np.repeat(threads, count), code, record=False)
        self.in_flight[units] = code.line
        self.copies.append(Copy(code, threads, offsets, data, self.committed[threads]))

    def commit(self, threads: np.ndarray) -> None:
        self.committed[threads] += 1

    def wait(self, threads: np.ndarray, pending: int | None) -> None:
        """Land the copies of `threads` but those of their last `pending` groups; None: all, committed or not."""
        waiting = np.zeros(self.committed.size, bool)
        waiting[threads] = True
        remaining = []
        for copy in self.copies:
            landed = waiting[copy.threads]
            if pending is not None:
                landed = landed & (copy.group < self.committed[copy.threads] - pending)
            if landed.any():
                self._land(copy, landed)
            if not landed.all():
                remaining.append(Copy(copy.code, *(part[~landed] for part in copy[1:])))
        self.copies = remaining

    def _land(self, copy: Copy, landed: np.ndarray) -> None:
        width = copy.data.itemsize
        self.memory.pieces(width)[copy.offsets[landed]] = copy.data[landed]
        units, count = units_of(copy.offsets[landed], width, self.unit)
        threads = np.repeat(copy.threads[landed], count)
        self.in_flight[units] = 0
        self.watch.marks["write"].touch(units, threads, copy.code.line)
        if self.proxy is not None:
            self.proxy.write(units, threads, copy.code)

    def _locate(self, code: Instruction, threads: np.ndarray, addresses: np.ndarray, width: int):
        check_alignment(addresses, width, threads, code)
        offsets = addresses.astype(np.int64) - SHARED_BASE
        if (wrong := (offsets < 0) | (offsets + width > self.size)).any():
            at = int(wrong.argmax())
            message = f"thread {threads[at]}: byte {offsets[at]} of {self.size} bytes of shared memory"
            raise OutOfBounds(message, code.line, code.text)
        return offsets, *units_of(offsets, width, self.unit)

    def _check(
        self,
        kind: str,
        units: np.ndarray,
        threads: np.ndarray,
        code: Instruction,
        same: np.ndarray | None = None,
        record: bool = True,
    ) -> None:
        if self.copies and (copying := self.in_flight[units]).any():
            at = int((copying != 0).argmax())
            thread = int(threads[at])
            self.watch.report(f"{kind} during cp.async", int(units[at]), code, int(copying[at]), thread, thread)
        self.watch.check(kind, units, threads, code, same, record)
        if self.proxy is not None and kind != "read":
            (self.proxy.write if record else self.proxy.check_write)(units, threads, code)
