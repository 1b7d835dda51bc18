"""The order of the checks, the deadline, a device that fails, a check that never ends."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from mfbench.errors import UsageError
from mfbench.gpu_check.journal import Journal
from mfbench.gpu_check.run import Findings, run_tasks, tasks, watch
from mfbench.gpu_check.task import Result, Task
from tests.mfbench.gpu_check.stand_in import StandIn


class Clock:
    """Virtual seconds, which tasks spend."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def task(self, name: str, seconds: float = 10.0, result: Result | Exception | None = None, **options) -> Task:
        def spend() -> Result:
            self.now += seconds
            if isinstance(result, Exception):
                raise result
            return result or Result(name, note="0.5 dP")

        return Task("equivalence", name, spend, **options)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "records.jsonl")


def test_what_matters_most_comes_first() -> None:
    parts = list(dict.fromkeys(task.part for task in tasks(StandIn(), seed=1)))
    assert parts == ["equivalence", "determinism", "graph and stream", "times", "the rest"]
    required = {task.part for task in tasks(StandIn(), seed=1) if task.required}
    assert required == {"equivalence", "determinism", "graph and stream"}


def test_nothing_is_begun_that_cannot_end_in_time(journal: Journal) -> None:
    clock, findings = Clock(), Findings("a GPU")
    planned = [clock.task("a"), clock.task("b"), clock.task("long", seconds=60.0), clock.task("short")]
    planned[2] = planned[2]._replace(seconds=60.0)
    run_tasks(planned, StandIn(), journal, 40.0, findings, clock)
    assert [result.name for _, result in findings.results] == ["a", "b", "short"]
    assert [task.name for task in findings.left_out] == ["long"]
    assert findings.seconds == 30.0
    assert not findings.right
    findings.left_out = [task._replace(required=False) for task in findings.left_out]
    assert findings.right


def test_an_error_is_a_finding_and_the_rest_goes_on(journal: Journal) -> None:
    clock, findings = Clock(), Findings("a GPU")
    planned = [clock.task("a", result=RuntimeError("no such instruction")), clock.task("b")]
    run_tasks(planned, StandIn(), journal, 100.0, findings, clock)
    assert [bool(result.wrong) for _, result in findings.results] == [True, False]
    assert "no such instruction" in findings.results[0][1].wrong


def test_a_device_that_failed_is_asked_nothing_more(journal: Journal) -> None:
    machine, clock, findings = StandIn(), Clock(), Findings("a GPU")
    machine.failure = RuntimeError("an illegal memory access was encountered")
    planned = [clock.task("a", result=Result("a", "wrong")), clock.task("b"), clock.task("c")]
    run_tasks(planned, machine, journal, 100.0, findings, clock)
    assert [task.name for task in findings.left_out] == ["b", "c"]
    assert "illegal memory access" in findings.lost
    assert not findings.right


def test_a_file_that_cannot_be_written_ends_the_run(journal: Journal) -> None:
    clock = Clock()
    planned = [clock.task("a", result=UsageError("disk full"))]
    with pytest.raises(UsageError, match="disk full"):
        run_tasks(planned, StandIn(), journal, 100.0, Findings("a GPU"), clock)


def test_the_watch_calls_unless_it_is_cancelled() -> None:
    called = threading.Event()
    watch(0.01, called.set)
    assert called.wait(20)
    other = threading.Event()
    watch(0.05, other.set).cancel()
    assert not other.wait(0.2)
