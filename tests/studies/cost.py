"""Break down the time of a run: measuring, gates, process starts, and the overhead of the harness.

python -m tests.studies.cost --suite quick
"""

from __future__ import annotations

import functools
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import click

from mfbench.commands.run import show
from mfbench.correctness import gate
from mfbench.correctness.audit import expected
from mfbench.measure import case as case_run
from mfbench.measure import roofline, session
from mfbench.measure.options import RunOptions
from mfbench.measure.suite import run_suite
from mfbench.measure.worker import process
from mfbench.problems import datasets
from mfbench.results.writer import Writer

MEASURING = ("evaluations, timed", "evaluations before each sample", "settling before each sample",
             "moving the data", "ceilings")  # fmt: skip
GATES = ("gates", "oracle", "drawing inputs")
REQUESTS = {"place": "moving the data", "prepare": "gates", "evaluate_redrawn": "gates", "time_draws": "gates",
            "samples_in_a_row": "gates", "release": "gates", "rest": "settling before each sample",
            "project": "pipes and sums over outputs"}  # fmt: skip


class Ledger:
    """Seconds by activity. Time in a nested activity counts for that one only."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()
        self._nested = 0.0

    @contextmanager
    def entry(self, name: str) -> Iterator[None]:
        outer, self._nested, start = self._nested, 0.0, time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - start
            self.spent[name] += elapsed - self._nested
            self._nested = outer + elapsed

    def booked(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*arguments: Any, **keywords: Any) -> Any:
            with self.entry(name):
                return function(*arguments, **keywords)

        return wrapper

    def request(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap `WorkerProcess.request`; split a sample into the evaluations and the cost of pipe and sums."""

        def wrapper(worker: Any, method: str, *arguments: Any) -> Any:
            if method != "sample":
                with self.entry(REQUESTS[method]):
                    return original(worker, method, *arguments)
            with self.entry("pipes and sums over outputs"):
                reading, observations = original(worker, method, *arguments)
            self.spent["evaluations, timed"] += reading.seconds
            self.spent["evaluations before each sample"] += reading.warm_up_s
            self.spent["pipes and sums over outputs"] -= reading.seconds + reading.warm_up_s
            return reading, observations

        return wrapper


def watched(ledger: Ledger) -> Iterator[Any]:
    """Yield patches that book the time of what a run calls."""
    yield mock.patch.object(process.WorkerProcess, "request", ledger.request(process.WorkerProcess.request))
    for owner, attribute, name in (
        (process.WorkerProcess, "start", "process starts"),
        (process.WorkerProcess, "ready", "process starts"),
        (process.WorkerProcess, "stop", "process starts"),
        (roofline, "measure", "ceilings"),
        (gate, "standard", "oracle"),
        (gate.Standard, "at", "oracle"),
        (expected.ExpectedOutputs, "of", "oracle"),
        (gate.Standard, "judge", "gates"),
        (case_run, "draw", "drawing inputs"),
        (session, "resolve", "drawing inputs"),
        (datasets, "load", "drawing inputs"),
        (Writer, "append", "records"),
    ):
        yield mock.patch.object(owner, attribute, ledger.booked(getattr(owner, attribute), name))


@click.command(help=__doc__)
@click.option("--suite", default="quick", show_default=True)
@click.option("--budget", type=float, default=5.0, show_default=True)
@click.option("--threads", type=click.IntRange(min=1))
def main(suite: str, budget: float, threads: int | None) -> None:
    ledger = Ledger()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as patches:
        for patch in watched(ledger):
            patches.enter_context(patch)
        start = time.perf_counter()
        with ledger.entry("everything else"):
            out = Path(folder) / "out.jsonl"
            found, _ = run_suite(RunOptions(suite=suite, device="cpu", out=out, threads=threads, budget=budget))
            with ledger.entry("table"):
                show(found, as_json=False)
        total = time.perf_counter() - start
    own = total - sum(ledger.spent[name] for name in (*MEASURING, *GATES, "process starts"))
    for name, seconds in ledger.spent.most_common():
        click.echo(f"{name:32} {seconds:8.2f} s  {seconds / total:6.1%}")
    click.echo(f"{'altogether':32} {total:8.2f} s")
    click.echo(f"overhead, outside measuring, process starts and gates: {own:.2f} s, {own / total:.1%}")


if __name__ == "__main__":
    main()
