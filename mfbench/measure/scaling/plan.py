"""What a series of launches measures, and in which order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mfbench import log
from mfbench.problems.bounds import DRAWN
from mfbench.problems.cases import Case
from mfbench.results import environment
from mfbench.results.records import ScalingKind
from mfbench.wording import counted

VISITS = 5  # launches of each number of processes; the fewest whose medians show their own correlation


class Cell(NamedTuple):
    """A case that one launch times, for all providers."""

    case: Case  # `processes` of None: one process without a group
    threads: int  # of each process
    kind: ScalingKind | None = None  # None: it is what others are compared with

    @property
    def processes(self) -> int:
        """Number of processes."""
        return self.case.processes or 1


class Plan(NamedTuple):
    """The cells of a case, by the launch that times them together."""

    one: Cell  # one process, repeated between the others
    several: Sequence[Sequence[Cell]]  # by ascending number of processes
    alone: Cell | None  # one process with a thread on every core; None: the same as `one`

    @property
    def cells(self) -> list[Cell]:
        """All cells, in the order of their records."""
        alone = [self.alone] if self.alone else []
        return [*alone, self.one, *(cell for together in self.several for cell in together)]

    def launches(self) -> Iterator[Sequence[Cell]]:
        """Yield the cells of each launch in order."""
        for _ in range(VISITS):
            for together in self.several:
                yield [self.one]
                yield together
            if self.alone:
                yield [self.one]
                yield [self.alone]
        yield [self.one]


def plan(case: Case, counts: Sequence[int], threads: int | None) -> Plan:
    """Return what to measure of a case.

    Args:
        case: without processes.
        counts: numbers of processes; 1 is measured in any case.
        threads: of each process; None: those that leave no core idle and share none, where possible.
    """
    cores, most = environment.usable_cpus(), max(counts)
    each = threads or max(1, cores // most)
    if each * most > cores:
        log.note(
            f"--processes: {most} processes of {counted(each, 'thread')} share {cores} CPUs and wait for each other"
        )

    def cell(count: int, kind: ScalingKind | None = None) -> Cell:
        users = case.m * (count if kind == "weak" else 1)
        return Cell(case.model_copy(update={"processes": count, "m": users}), each, kind)

    several = []
    for count in sorted(set(counts) - {1}):
        weak = [cell(count, "weak")] if case.data in DRAWN else []  # a data set has the users that it has
        several.append([cell(count, "strong"), *weak])
    whole = min(cores, each * most)
    return Plan(cell(1), several, Cell(case, whole) if whole > each else None)
