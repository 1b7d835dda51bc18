"""The progress of a run as a bar in the terminal."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from mfbench import log
from mfbench.measure.suite import Progress
from mfbench.problems.cases import CaseSpec


class ProgressBar(Progress):
    """A bar on stderr, shown inside a `with` block if stderr is a terminal; hidden by --quiet and --verbose."""

    def __init__(self) -> None:
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            disable=not sys.stderr.isatty() or log.level() != 0,
        )
        self._task = self._bar.add_task("")

    def __enter__(self) -> ProgressBar:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()

    def start(self, cases: int) -> None:
        self._bar.update(self._task, total=cases)

    def report(self, spec: CaseSpec, activity: str) -> None:
        self._bar.update(self._task, description=f"{spec.label} {activity}")

    def advance(self) -> None:
        self._bar.advance(self._task)
