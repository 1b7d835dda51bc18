"""Asynchronous matrix instructions of a block's warpgroups: which are pending, and which registers these use.

The rules are those of the PTX ISA 8.x on wgmma. Registers that a pending instruction uses are in flight: no other
instruction may touch them, except an accumulation of the same shape into the same registers. A fence must separate
other uses of a register from an instruction that uses it. The warps of a group issue the same instructions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import NamedTuple

from .errors import Diverged, InFlight, Unfenced
from .parser import Instruction

WARPS = 4  # of a group


class Issue(NamedTuple):
    """What the warps of a group must agree in."""

    line: int
    operands: tuple[int, ...]  # descriptors and predicate


@dataclass
class Operation:
    """A product that some warps of a group have issued and not waited for."""

    code: Instruction
    issue: Issue
    accumulators: tuple[str, ...]  # registers that it adds to
    inputs: tuple[str, ...]  # registers that it reads
    complete: Callable[[list[int]], None]  # for some warps
    groups: dict[int, int] = field(
        default_factory=dict
    )  # warp that has not waited -> number of the group it commits to


class Warpgroups:
    """Pending operations and fences of one block."""

    def __init__(self, warps: int) -> None:
        self.pending: list[Operation] = []
        self.committed = [0] * warps  # groups of operations committed so far, by warp
        self.issues: dict[int, list[Issue]] = {}  # by warpgroup
        self.issued = [0] * warps  # operations issued so far, by warp
        self.now = 1
        self.fenced = [0] * warps  # when each warp last executed a fence; 0: never
        self.used: dict[str, list[int]] = {}  # register -> when each warp last used it outside these operations

    def use(self, name: str, warps: Collection[int], code: Instruction) -> None:
        """Record that another instruction reads or writes a register.

        Raises:
            InFlight: a pending operation uses it.
        """
        for operation in self.pending:
            if (name in operation.accumulators or name in operation.inputs) and _share(warps, operation):
                raise _in_flight(name, operation, code)
        times = self.used.setdefault(name, [0] * len(self.fenced))
        for warp in warps:
            times[warp] = self.now

    def fence(self, warps: Collection[int]) -> None:
        """Order the uses of registers so far before the operations to come."""
        for warp in warps:
            self.fenced[warp] = self.now
        self.now += 1

    def issue(self, operation: Operation, warps: Collection[int]) -> None:
        """Add an operation that some warps issue to the pending ones.

        Raises:
            InFlight: it uses a register of a pending operation otherwise than to accumulate in the same shape.
            Unfenced: no fence after the last use of one of its registers by another instruction, or none at all.
            Diverged: another warp of the group has issued something else in its place.
        """
        self._check_fences(operation, warps)
        self._check_pending(operation, warps)
        for warp in warps:
            self._agree(warp, operation)
            operation.groups[warp] = self.committed[warp]
        self.pending.append(operation)

    def commit(self, warps: Collection[int]) -> None:
        """Close the group of the operations that each of `warps` issued since its last one."""
        for warp in warps:
            self.committed[warp] += 1

    def wait(self, warps: Collection[int], newest: int) -> None:
        """Complete the operations of `warps` but those of their `newest` last groups, or in none yet."""
        for operation in self.pending:
            groups = operation.groups
            done = [warp for warp in warps if groups.get(warp, NEVER) < self.committed[warp] - newest]
            if done:
                operation.complete(done)
            for warp in done:
                del groups[warp]
        self.pending = [operation for operation in self.pending if operation.groups]

    def finish(self) -> None:
        """Check, at the end of a block, that the warps of each group have issued the same operations.

        Raises:
            Diverged: one has issued fewer than another.
        """
        for group, issues in self.issues.items():
            counts = self.issued[group * WARPS :][:WARPS]
            if min(counts) < len(issues):
                warp, line = group * WARPS + counts.index(min(counts)), issues[min(counts)].line
                raise Diverged(f"warp {warp} ends without a wgmma of the rest of its group", line, "")

    def _check_fences(self, operation: Operation, warps: Collection[int]) -> None:
        code = operation.code
        if not all(self.fenced[warp] for warp in warps):
            raise Unfenced("no wgmma.fence before the first wgmma", code.line, code.text)
        for name in (*operation.accumulators, *operation.inputs):
            times = self.used.get(name)
            if times is not None and any(times[warp] > self.fenced[warp] for warp in warps):
                raise Unfenced(f"no wgmma.fence after the last use of {name}", code.line, code.text)

    def _check_pending(self, operation: Operation, warps: Collection[int]) -> None:
        for other in self.pending:
            if not _share(warps, other):
                continue
            clash = set(operation.inputs).intersection(other.accumulators)
            clash.update(set(operation.accumulators).intersection(other.inputs))
            if other.accumulators != operation.accumulators or other.code.modifiers != operation.code.modifiers:
                clash.update(set(operation.accumulators).intersection(other.accumulators))
            if clash:
                raise _in_flight(min(clash), other, operation.code)

    def _agree(self, warp: int, operation: Operation) -> None:
        code, issue = operation.code, operation.issue
        issues, place = self.issues.setdefault(warp // WARPS, []), self.issued[warp]
        if place == len(issues):
            issues.append(issue)
        elif issues[place] != issue:
            message = f"warp {warp} issues {issue}, another of its group {issues[place]}"
            raise Diverged(message, code.line, code.text)
        self.issued[warp] += 1


NEVER = 1 << 62


def _share(warps: Collection[int], operation: Operation) -> bool:
    return any(warp in operation.groups for warp in warps)


def _in_flight(name: str, operation: Operation, code: Instruction) -> InFlight:
    return InFlight(f"{name} is in flight since PTX line {operation.code.line}", code.line, code.text)
