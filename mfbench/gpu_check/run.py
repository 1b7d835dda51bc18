"""Run the checks in the order of their worth, while time is left, and stop a check that never ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mfbench import log
from mfbench.errors import MfbenchError
from mfbench.gpu_check.behaviour import determinism, graph_and_stream
from mfbench.gpu_check.equivalence import equivalence
from mfbench.gpu_check.journal import Journal
from mfbench.gpu_check.machine import Machine
from mfbench.gpu_check.random_problems import random_problems
from mfbench.gpu_check.task import Context, Result, Task
from mfbench.gpu_check.times import more_times, times
from mfbench.providers.exceptions import reason
from mfbench.results.environment import new_run_id

CHECKS = (equivalence, determinism, graph_and_stream, times, more_times, random_problems)
GRACE_S = 25.0  # that a check may run beyond the time, before the process ends without it


@dataclass
class Findings:
    """What is known so far."""

    machine: str
    results: list[tuple[Task, Result]] = field(default_factory=list)
    left_out: list[Task] = field(default_factory=list)
    running: Task | None = None
    lost: str = ""  # why nothing could be checked any more
    seconds: float = 0.0

    @property
    def wrong(self) -> list[tuple[Task, Result]]:
        """Tasks that found something wrong."""
        return [(task, result) for task, result in self.results if result.wrong]

    @property
    def unfinished(self) -> list[Task]:
        """Required tasks that time was too short for."""
        return [task for task in self.left_out if task.required]

    @property
    def right(self) -> bool:
        """Everything that is required was checked, and nothing is wrong."""
        return not (self.wrong or self.unfinished or self.lost)


def tasks(machine: Machine, seed: int) -> list[Task]:
    """Return all tasks, those that matter most first."""
    context = Context(machine, new_run_id(), seed)
    return [task for check in CHECKS for task in check(context)]


def run_tasks(
    planned: Sequence[Task], machine: Machine, journal: Journal, deadline: float, findings: Findings,
    clock: Callable[[], float] = time.monotonic,
) -> None:  # fmt: skip
    """Run tasks until the deadline, and write their records at once.

    Args:
        planned: the tasks, in order.
        machine: where they run.
        journal: receives the records.
        deadline: by `clock`; a task that needs more time than is left is left out.
        findings: receives the results.
        clock: in seconds.

    Raises:
        UsageError: the journal cannot be written.
    """
    begin = clock()
    for task in planned:
        if findings.lost or clock() + task.seconds > deadline:
            findings.left_out.append(task)
            continue
        log.note(f"{clock() - begin:4.0f} s  {task.part}: {task.name}")
        findings.running = task
        result = _run(task)
        journal.append(result.records)
        findings.results.append((task, result))
        findings.running = None
        if result.wrong:
            log.note(f"wrong: {result.name}: {result.wrong}")
            findings.lost = _failed(machine)
        findings.seconds = clock() - begin


def _run(task: Task) -> Result:
    try:
        return task.run()
    except MfbenchError:
        raise
    except Exception as error:  # of a compiler or of the device
        return Result(task.name, reason(error))


def _failed(machine: Machine) -> str:
    """Return why the device can run nothing more, as after an illegal access; empty if it can."""
    try:
        machine.synchronize()
    except Exception as error:
        return f"the device failed: {reason(error)}"
    return ""


def watch(seconds: float, expire: Callable[[], None]) -> threading.Timer:
    """Start a timer that calls `expire` if it is not cancelled before; waiting for a device does not hold it up."""
    timer = threading.Timer(seconds, expire)
    timer.daemon = True
    timer.start()
    return timer
