"""Asynchronous matrix instructions of a block's warpgroups: which are pending, and which registers these use.

The rules are those of the PTX ISA 8.x on wgmma. Registers that a pending instruction uses are in flight: no other
instruction may touch them, except an accumulation of the same shape into the same registers. A fence must separate
other uses of a register from an instruction that uses it. The warps of a group issue the same instructions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

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
    complete: Callable[[np.ndarray], None]  # of some warps
    warps: np.ndarray  # those that have not waited
    groups: np.ndarray = field(default_factory=lambda: np.zeros(0))  # for each: the number of its group of operations


class Warpgroups:
    """Pending operations and fences of one block."""

    def __init__(self, warps: int) -> None:
        self.pending: list[Operation] = []
        self.committed = np.zeros(warps, np.int64)  # groups committed so far, by warp
        self.issues: dict[int, list[Issue]] = {}  # by warpgroup
        self.issued = np.zeros(warps, np.int64)  # operations issued so far, by warp
        self.now = 1
        self.fenced = np.zeros(warps, np.int64)  # when each warp last executed a fence; 0: never
        self.used: dict[str, np.ndarray] = {}  # register -> when each warp last used it outside these operations

    def use(self, name: str, warps: np.ndarray, code: Instruction) -> None:
        """Record that another instruction reads or writes a register.

        Raises:
            InFlight: a pending operation uses it.
        """
        for operation in self.pending:
            uses = name in operation.accumulators or name in operation.inputs
            if uses and np.isin(warps, operation.warps).any():
                raise InFlight(f"{name} is in flight since PTX line {operation.code.line}", code.line, code.text)
        self.used.setdefault(name, np.zeros(self.fenced.size, np.int64))[warps] = self.now

    def fence(self, warps: np.ndarray) -> None:
        """Order the uses of registers so far before the operations to come."""
        self.fenced[warps] = self.now
        self.now += 1

    def issue(self, operation: Operation) -> None:
        """Add an operation to the pending ones.

        Raises:
            InFlight: it uses a register of a pending operation otherwise than to accumulate in the same shape.
            Unfenced: no fence after the last use of one of its registers by another instruction, or none at all.
            Diverged: another warp of the group has issued something else in its place.
        """
        self._check_fences(operation)
        self._check_pending(operation)
        for warp in operation.warps.tolist():
            self._agree(warp, operation)
        operation.groups = self.committed[operation.warps]
        self.pending.append(operation)

    def commit(self, warps: np.ndarray) -> None:
        """Close the group of the operations that each of `warps` issued since its last one."""
        self.committed[warps] += 1

    def wait(self, warps: np.ndarray, newest: int) -> None:
        """Complete the operations of `warps` but those of their `newest` last groups, or in none yet."""
        remaining = []
        for operation in self.pending:
            done = np.isin(operation.warps, warps)
            done &= operation.groups < self.committed[operation.warps] - newest
            if done.any():
                operation.complete(operation.warps[done])
            if not done.all():
                operation.warps, operation.groups = operation.warps[~done], operation.groups[~done]
                remaining.append(operation)
        self.pending = remaining

    def finish(self) -> None:
        """Check, at the end of a block, that the warps of each group have issued the same operations.

        Raises:
            Diverged: one has issued fewer than another.
        """
        for group, issues in self.issues.items():
            counts = self.issued[group * WARPS :][:WARPS]
            if (behind := counts < len(issues)).any():
                warp, line = group * WARPS + int(behind.argmax()), issues[int(counts.min())].line
                raise Diverged(f"warp {warp} ends without a wgmma of the rest of its group", line, "")

    def _check_fences(self, operation: Operation) -> None:
        code, fenced = operation.code, self.fenced[operation.warps]
        if not fenced.all():
            raise Unfenced("no wgmma.fence before the first wgmma", code.line, code.text)
        for name in (*operation.accumulators, *operation.inputs):
            used = self.used.get(name)
            if used is not None and (used[operation.warps] > fenced).any():
                raise Unfenced(f"no wgmma.fence after the last use of {name}", code.line, code.text)

    def _check_pending(self, operation: Operation) -> None:
        code, results, inputs = operation.code, set(operation.accumulators), set(operation.inputs)
        for other in self.pending:
            if not np.isin(other.warps, operation.warps).any():
                continue
            continues = other.accumulators == operation.accumulators and other.code.modifiers == code.modifiers
            clash = inputs & set(other.accumulators) | results & set(other.inputs)
            clash |= set() if continues else results & set(other.accumulators)
            if clash:
                name = min(clash)
                raise InFlight(f"{name} is in flight since PTX line {other.code.line}", code.line, code.text)

    def _agree(self, warp: int, operation: Operation) -> None:
        code, issue = operation.code, operation.issue
        issues, place = self.issues.setdefault(warp // WARPS, []), int(self.issued[warp])
        if place == len(issues):
            issues.append(issue)
        elif issues[place] != issue:
            message = f"warp {warp} issues {issue}, another of its group {issues[place]}"
            raise Diverged(message, code.line, code.text)
        self.issued[warp] += 1
