"""How much of the CPUs other programs took."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable

import psutil

IDLE = ("idle", "iowait")
WITHIN_USER = ("guest", "guest_nice")  # are counted in `user` and `nice` already


class ForeignLoad:
    """CPU time that neither this process nor its workers used. The system counts in ticks of 10 ms, as a rule."""

    def __init__(self, workers: Iterable[int]) -> None:
        self._own = [psutil.Process()]
        for pid in workers:
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended: the next request tells how
                self._own.append(psutil.Process(pid))
        self._last = self._read()

    def cores(self) -> float:
        """How many cores the others kept busy since the last call, on average."""
        last, self._last = self._last, self._read()
        (start, busy, own), (end, busy_now, own_now) = last, self._last
        return max(0.0, (busy_now - busy - (own_now - own)) / (end - start)) if end > start else 0.0

    def _read(self) -> tuple[float, float, float]:
        own = 0.0
        for process in self._own:
            with contextlib.suppress(psutil.NoSuchProcess):
                own += sum(process.cpu_times()[:2])
        times = psutil.cpu_times()._asdict()
        busy = sum(seconds for state, seconds in times.items() if state not in (*IDLE, *WITHIN_USER))
        return time.perf_counter(), busy, own
