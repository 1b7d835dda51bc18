"""Races: two threads at the same bytes, one of them writing, with nothing between that orders them.

Threads of different warps are ordered by `bar.sync`, threads of one warp by `bar.warp.sync` too (not by lockstep, which
hardware does not promise), blocks of one launch by tickets alone: one that takes a ticket (an atomic with `acq_rel`)
comes after what the thread that took an earlier one did before, and its block before its last barrier. Atomics are
ordered among themselves.

A mark says who touched a unit of memory since the last barrier: the lowest and the highest thread, which is enough to
tell 'only this thread', 'only its warp' and 'another warp'.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from .parser import Instruction

WARP = 32
NEVER = 1 << 62  # a time that no clock reaches
SEVERAL_WARPS = -1  # as a thread: no other is in its warp, so that only a barrier orders its access after another
CONFLICTS = {"read": ("write", "atomic"), "write": ("read", "write", "atomic"), "atomic": ("read", "write")}


class Race(NamedTuple):
    """A hazard: `line` (this access) and `earlier` (the one it is not ordered after) are lines of PTX."""

    kind: str  # as in "write after read"
    where: str  # "shared", or "argument 3"
    line: int
    earlier: int
    text: str  # the instruction at `line`
    threads: tuple[int, int]  # the earlier one and this one; blocks where `between_blocks`
    byte: int  # offset into `where`
    between_blocks: bool = False


@dataclass
class Races:
    """Races seen so far, each pair of instructions once."""

    found: dict[tuple, Race] = field(default_factory=dict)

    def add(self, race: Race) -> None:
        self.found.setdefault((race.kind, race.where, race.line, race.earlier, race.between_blocks), race)


class Clock:
    """Time in barriers: what happened before `floor` is ordered for all, before `group[g]` for the threads of g."""

    def __init__(self, groups: int) -> None:
        self.now = self.floor = 1
        self.group = np.ones(groups, np.int64)

    @property
    def stamp(self) -> int:
        """The time that an access now is marked with."""
        return self.now

    def ordered_before(self, groups: np.ndarray, elsewhere: np.ndarray) -> np.ndarray:
        """The time before which touches, elsewhere or by these groups, are ordered for the groups."""
        return np.where(elsewhere, self.floor, self.group[groups])

    def barrier(self) -> None:
        self.now += 1
        self.floor = self.now
        self.group[:] = self.now

    def group_barrier(self, groups: np.ndarray) -> None:
        self.now += 1
        self.group[groups] = self.now


class BlockClock(Clock):
    """Time in tickets: what happened before `group[b]` is ordered for block b.

    All tickets are taken to be at one address, as in the kernels here.
    """

    def __init__(self, blocks: int) -> None:
        super().__init__(blocks)
        self.later = False  # the running block has taken its ticket: what it does now is ordered for nobody

    def start_block(self) -> None:
        self.later = False

    def ordered_before(self, groups: np.ndarray, elsewhere: np.ndarray) -> np.ndarray:
        return self.group[groups]

    def ticket(self, block: int) -> None:
        self.now += 1
        self.group[block], self.later = self.now, True

    @property
    def stamp(self) -> int:
        return NEVER if self.later else self.now


class Marks:
    """For each unit of memory: the range of threads that touched it, when last, and by which line of PTX."""

    def __init__(self, units: int, clock: Clock, group_bits: int) -> None:
        self.clock, self.group_bits = clock, group_bits  # a thread's group is thread >> group_bits
        self.low, self.high, self.line = (np.zeros(units, np.int32) for _ in range(3))
        self.stamp = np.zeros(units, np.int64)

    def _look(self, units: np.ndarray, threads: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Lowest and highest thread and whether that is still unordered, None if it is nowhere."""
        stamp = self.stamp[units]
        if not (stamp >= self.clock.floor).any():
            return None
        low, high, group = self.low[units], self.high[units], threads >> self.group_bits
        elsewhere = (low >> self.group_bits != group) | (high >> self.group_bits != group)
        return low, high, stamp >= self.clock.ordered_before(group, elsewhere)

    def conflicts(self, units: np.ndarray, threads: np.ndarray) -> np.ndarray | None:
        """Where another thread's touch is not ordered before one by `threads` now; None: nowhere."""
        if (found := self._look(units, threads)) is None:
            return None
        low, high, live = found
        return live & ((low != threads) | (high != threads))

    def other(self, unit: int, thread: int) -> int:
        low, high = int(self.low[unit]), int(self.high[unit])
        return low if low != thread else high

    def touch(self, units: np.ndarray, threads: np.ndarray, line: int, last: np.ndarray | None = None) -> None:
        """Record `threads` (ascending) at `units`, which may repeat: of equal units the last assignment stands.

        Args:
            units: what they touch.
            threads: one for each unit, or the first of several.
            line: of PTX.
            last: the last of several threads; None: as `threads`.
        """
        lowest, highest = threads, threads if last is None else last
        if (found := self._look(units, threads)) is not None:
            low, high, live = found
            lowest, highest = (
                np.where(live, np.minimum(low, lowest), lowest),
                np.where(live, np.maximum(high, highest), highest),
            )
        self.high[units] = highest
        self.low[units[::-1]] = lowest[::-1]
        self.stamp[units] = self.clock.stamp
        self.line[units] = line

    def since_barrier_by_others(self, thread: int) -> np.ndarray:
        """Where a thread other than that one touched since the last barrier of all."""
        return (self.stamp >= self.clock.floor) & ((self.low != thread) | (self.high != thread))


class Watch:
    """Marks of one memory, per kind of access; `check` reports conflicts, then records the access."""

    def __init__(self, where: str, units: int, unit: int, clock: Clock, races: Races, blocks: bool = False) -> None:
        self.where, self.unit, self.races, self.between_blocks = where, unit, races, blocks
        self.marks = {kind: Marks(units, clock, 0 if blocks else WARP.bit_length() - 1) for kind in CONFLICTS}

    def check(
        self,
        kind: str,
        units: np.ndarray,
        threads: np.ndarray,
        code: Instruction,
        same: np.ndarray | None = None,
        record: bool = True,
    ) -> None:
        """Report what is not ordered before this access, and record it.

        Threads that hold copies of a value may all store it: by one instruction, a store that leaves what is there as
        it is (`same`) is no race with another.
        """
        for other in CONFLICTS[kind]:
            marks = self.marks[other]
            conflicts = marks.conflicts(units, threads)
            if conflicts is None:
                continue
            if same is not None and other == "write":
                conflicts &= ~(same & (marks.line[units] == code.line))
            if conflicts.any():
                at = int(conflicts.argmax())
                unit, thread = int(units[at]), int(threads[at])
                earlier = int(marks.line[unit]), marks.other(unit, thread)
                self.report(f"{kind} after {other}", unit, code, *earlier, thread)
        if record:
            self.marks[kind].touch(units, threads, code.line)

    def check_stored(self, lost: np.ndarray, offsets: np.ndarray, threads: np.ndarray, code: Instruction) -> None:
        """Of threads that store different values at one place in one instruction, all but the last lost theirs."""
        if lost.any():
            at = int(lost.argmax())
            winner = int(threads[np.flatnonzero(offsets == offsets[at])[-1]])
            self.report("write with write", int(offsets[at]) // self.unit, code, code.line, winner, int(threads[at]))

    def report(self, kind: str, unit: int, code: Instruction, earlier: int, other: int, thread: int) -> None:
        byte, text = unit * self.unit, code.text
        self.races.add(Race(kind, self.where, code.line, earlier, text, (other, thread), byte, self.between_blocks))
