"""Measure how much of the cores of a run other programs use."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from typing import Any

import psutil

IDLE = ("idle", "iowait")
WITHIN_USER = ("guest", "guest_nice")  # already counted in `user` and `nice`


class BackgroundLoad:
    """Time of the cores that this process may run on, used by neither this process nor its workers.

    Systems usually count it in ticks of 10 ms.
    """

    def __init__(self, workers: Iterable[int]) -> None:
        """Start counting.

        Args:
            workers: process ids.
        """
        self._own = [psutil.Process()]
        for pid in workers:
            with contextlib.suppress(psutil.NoSuchProcess):  # it died; its next request will report that
                self._own.append(psutil.Process(pid))
        self._last = self._read()

    def cores(self) -> float:
        """Return the average number of cores that other programs kept busy since the last call."""
        last, self._last = self._last, self._read()
        (start, busy, own), (end, busy_now, own_now) = last, self._last
        return max(0.0, (busy_now - busy - (own_now - own)) / (end - start)) if end > start else 0.0

    def _read(self) -> tuple[float, float, float]:
        own = 0.0
        for process in self._own:
            with contextlib.suppress(psutil.NoSuchProcess):
                own += sum(process.cpu_times()[:2])
        busy = sum(
            seconds
            for core in self._cores()
            for state, seconds in core._asdict().items()
            if state not in (*IDLE, *WITHIN_USER)
        )
        return time.perf_counter(), busy, own

    def _cores(self) -> list[Any]:
        """Return the times of the cores that this process may run on."""
        cores: list[Any] = psutil.cpu_times(percpu=True)
        if not hasattr(os, "sched_getaffinity"):
            return cores
        return [cores[core] for core in os.sched_getaffinity(0) if core < len(cores)] or cores
