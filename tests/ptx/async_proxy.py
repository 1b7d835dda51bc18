"""Shared memory as asynchronous matrix instructions see it: what has reached them, and what they still read.

They read through the async proxy, to which a write by any other instruction (the generic proxy) is visible only behind
a `fence.proxy.async` on the path that orders them: write, fence, read (PTX ISA 8.x, memory consistency model, proxies).
The fence may be the writer's, the reader's, or that of a third warp between barriers. Warps are ordered by `bar.sync`.
"""

from __future__ import annotations

import numpy as np

from .parser import Instruction
from .races import WARP, Clock, Watch

NEVER = np.iinfo(np.int64).max


class Visibility:
    """For each unit of shared memory: who last wrote it, and in which intervals between barriers it was fenced."""

    def __init__(self, units: int, warps: int, clock: Clock) -> None:
        self.clock = clock
        self.writer, self.line = np.zeros(units, np.int32), np.zeros(units, np.int32)
        self.written = np.zeros(units, np.int64)  # interval of the last write; 0: none
        self.fenced = np.zeros(units, np.int64)  # interval of the writer's first fence after that; NEVER: none yet
        self.fences = np.zeros(warps, np.int64)  # interval of each warp's last fence
        self.any_fence = (0, 0)  # the last two intervals in which any warp had a fence

    def write(self, units: np.ndarray, threads: np.ndarray, line: int) -> None:
        """Record a write by the generic proxy."""
        self.writer[units], self.line[units] = threads // WARP, line
        self.written[units], self.fenced[units] = self.clock.floor, NEVER

    def fence(self, warps: np.ndarray) -> None:
        """Record a fence.proxy.async by some warps."""
        interval = self.clock.floor
        self.fenced[(self.fenced == NEVER) & np.isin(self.writer, warps)] = interval
        self.fences[warps] = interval
        if self.any_fence[1] != interval:
            self.any_fence = (self.any_fence[1], interval)

    def hidden(self, units: np.ndarray, warps: list[int]) -> tuple[np.ndarray, int]:
        """Return which units hold a write that has not reached an asynchronous read by one of `warps`, and by which."""
        interval, written = self.clock.floor, self.written[units]
        between_barriers = max(fence for fence in (0, *self.any_fence) if fence < interval)
        fences = np.maximum(self.fences[warps], between_barriers)
        waiting = written >= fences.min()
        if waiting.any():
            fenced, writer = self.fenced[units], self.writer[units]
            waiting &= fenced >= interval  # not by the writer before the last barrier
            for warp, fence in zip(warps, fences, strict=True):
                here = waiting & (written >= fence) & ((fenced > interval) | (writer != warp))
                if here.any():
                    return here, warp
        return np.zeros_like(waiting), -1


class AsyncProxy:
    """Asynchronous reads of a block's shared memory. What breaks the rules is reported as a race."""

    def __init__(self, watch: Watch, units: int, warps: int, clock: Clock) -> None:
        self.watch, self.visibility = watch, Visibility(units, warps, clock)
        self.readers = np.zeros(units, np.int32)  # warps that have yet to complete a read
        self.reader_line = np.zeros(units, np.int32)

    def begin_read(self, code: Instruction, warps: list[int], units: np.ndarray) -> None:
        """Check that some warps can read `units`, which must not change until `end_read`."""
        hidden, warp = self.visibility.hidden(units, warps)
        if hidden.any():
            unit = int(units[hidden.argmax()])
            writer, line = int(self.visibility.writer[unit]) * WARP, int(self.visibility.line[unit])
            self.watch.report("async read of unfenced write", unit, code, line, writer, warp * WARP)
        self.readers[units] += len(warps)
        self.reader_line[units] = code.line

    def end_read(self, code: Instruction, warps: list[int], units: np.ndarray) -> None:
        """Record that some warps have completed their read."""
        self.complete_read(units, len(warps))
        first, last = (np.full(units.size, warp * WARP) for warp in (warps[0], warps[-1]))
        self.watch.marks["read"].touch(units, first, code.line, last)

    def complete_read(self, units: np.ndarray, warps: int = 1) -> None:
        """Record the end of a read that every other warp learns of by a barrier of its own."""
        self.readers[units] -= warps

    def write(self, units: np.ndarray, threads: np.ndarray, code: Instruction) -> None:
        """Record a write by the generic proxy, which must not change what is being read."""
        self.check_write(units, threads, code)
        self.visibility.write(units, threads, code.line)

    def check_write(self, units: np.ndarray, threads: np.ndarray, code: Instruction) -> None:
        """Report a write to what a pending instruction reads."""
        if (read := self.readers[units] > 0).any():
            at = int(read.argmax())
            unit, thread = int(units[at]), int(threads[at])
            self.watch.report("write during async read", unit, code, int(self.reader_line[unit]), thread, thread)
