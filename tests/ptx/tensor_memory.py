"""Tensor memory of sm_100: 128 lanes of 512 columns of 32 bits, its allocation, and who may touch it when.

Cells that a product reads or adds to are in use until its completion is seen. Loads and stores are pending until the
warp waits for them (tcgen05.wait); registers that a load fills are ordered by their own dependences. Threads of
different warps are ordered by `bar.sync`, as in shared memory.
"""

from __future__ import annotations

import numpy as np

from .errors import Misused
from .parser import Instruction
from .races import SEVERAL_WARPS, WARP, Clock, Races, Watch

LANES, COLUMNS = 128, 512
BEHIND = {"read": ("write",), "write": ("read", "write")}  # kind of access -> those that it has to wait for
SMALLEST = 32  # columns of an allocation, which is a power of two


class TensorMemory:
    def __init__(self, clock: Clock, races: Races) -> None:
        self.cells = np.full((LANES, COLUMNS), 0xFFFFFFFF, np.uint32)  # NaN
        self.allocated = np.zeros(COLUMNS, bool)
        self.relinquished = False
        self.watch = Watch("tensor memory", LANES * COLUMNS, 4, clock, races)
        self.in_use = np.zeros((LANES, COLUMNS), np.int32)  # pending products
        self.user_line = np.zeros((LANES, COLUMNS), np.int32)
        self.pending = {kind: np.full((LANES, COLUMNS), -1, np.int32) for kind in BEHIND}  # warp that has yet to wait
        self.pending_line = {kind: np.zeros((LANES, COLUMNS), np.int32) for kind in BEHIND}

    def allocate(self, columns: int, code: Instruction) -> int:
        """Return the first of some free columns.

        Raises:
            Misused: a size that is not allowed, none free, or the permit was given up.
        """
        if self.relinquished or columns < SMALLEST or columns & columns - 1:
            raise Misused(f"{columns} columns cannot be allocated", code.line, code.text)
        for first in range(0, COLUMNS - columns + 1, columns):
            if not self.allocated[first : first + columns].any():
                self.allocated[first : first + columns] = True
                return first
        raise Misused(f"no {columns} columns are free", code.line, code.text)

    def free(self, first: int, columns: int, code: Instruction) -> None:
        """Give columns back.

        Raises:
            Misused: they are not all allocated, or in use.
        """
        these = slice(first, first + columns)
        if not self.allocated[these].all() or self.in_use[:, these].any():
            raise Misused("columns that are in use or not allocated are freed", code.line, code.text)
        self.allocated[these] = False

    def finish(self, block: int) -> None:
        """Check, at the end of a block, that it has given back what it allocated.

        Raises:
            Misused: it has not.
        """
        if self.allocated.any():
            raise Misused(f"block {block} ends with columns allocated", 0, "")

    def load(self, code: Instruction, threads: np.ndarray, lanes: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return the cells that each thread loads, [threads, count]."""
        self._access("read", code, threads, lanes, columns)
        return self.cells[lanes, columns]

    def store(
        self, code: Instruction, threads: np.ndarray, lanes: np.ndarray, columns: np.ndarray, values: np.ndarray
    ) -> None:
        """Begin to store values, [threads, count]."""
        self._access("write", code, threads, lanes, columns)
        self.cells[lanes, columns] = values

    def wait(self, kind: str, warps: np.ndarray) -> None:
        """Finish the loads ("read") or stores ("write") of some warps."""
        self.pending[kind][np.isin(self.pending[kind], warps)] = -1

    def begin(self, code: Instruction, kind: str, lanes: np.ndarray, columns: np.ndarray) -> None:
        """Check that a product may read ("read") or add to ("write") cells, in use until `end`.

        Products are ordered among themselves.
        """
        self._check_allocated(code, columns)
        self._check_pending(kind, code, lanes, columns, SEVERAL_WARPS)
        units = (lanes * COLUMNS + columns).ravel()
        self.watch.check(kind, units, np.full(units.size, SEVERAL_WARPS), code, record=False)
        self.in_use[lanes, columns] += 1
        self.user_line[lanes, columns] = code.line

    def end(self, lanes: np.ndarray, columns: np.ndarray) -> None:
        self.in_use[lanes, columns] -= 1

    def _access(
        self, kind: str, code: Instruction, threads: np.ndarray, lanes: np.ndarray, columns: np.ndarray
    ) -> None:
        self._check_allocated(code, columns)
        warps = threads[:, None] // WARP
        if (lanes // WARP != warps % 4).any():
            raise Misused("a warp reaches lanes of another one", code.line, code.text)
        self._check_pending(kind, code, lanes, columns, int(threads[0]))
        if (busy := self.in_use[lanes, columns] > 0).any():
            line = int(self.user_line[lanes, columns][busy][0])
            self._report(f"{kind} during tcgen05.mma", code, lanes, columns, busy, line, int(threads[0]))
        units = lanes * COLUMNS + columns
        self.watch.check(kind, units.ravel(), np.repeat(threads, units.shape[1]), code)
        self.pending[kind][lanes, columns] = warps
        self.pending_line[kind][lanes, columns] = code.line

    def _check_pending(self, kind: str, code: Instruction, lanes: np.ndarray, columns: np.ndarray, thread: int) -> None:
        for other in BEHIND[kind]:
            if (pending := self.pending[other][lanes, columns] >= 0).any():
                line = int(self.pending_line[other][lanes, columns][pending][0])
                self._report(f"{kind} during {other}", code, lanes, columns, pending, line, thread)

    def _check_allocated(self, code: Instruction, columns: np.ndarray) -> None:
        if columns.max() >= COLUMNS or not self.allocated[columns].all():
            raise Misused("columns that are not allocated", code.line, code.text)

    def _report(self, kind: str, code: Instruction, lanes, columns, where: np.ndarray, line: int, thread: int) -> None:
        unit = int((lanes * COLUMNS + columns)[where][0])
        self.watch.report(kind, unit, code, line, thread, thread)
