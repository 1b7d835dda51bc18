"""Forecast how long the steps of a case will take, from what the same steps took in earlier cases."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from mfbench.measure.planning import duration

WORTH_S = 1.0  # shorter forecasts are not reported


class Forecast:
    """Seconds per unit of work of every step, the least seen so far: small cases are mostly overhead."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._rates: dict[str, float] = {}

    def seconds(self, step: str, work: float) -> float | None:
        """Return what a step will take; None if no case had it yet.

        Args:
            step: name.
            work: in a unit that all cases share, such as multiply-adds.
        """
        rate = self._rates.get(step)
        return None if rate is None else rate * work

    @contextlib.contextmanager
    def step(self, name: str, work: float, progress: Callable[[str], None]) -> Iterator[None]:
        """Report a step with its forecast, and learn from it unless it fails."""
        expected = self.seconds(name, work)
        progress(f"{name}, about {duration(expected)}" if expected is not None and expected >= WORTH_S else name)
        start = self._clock()
        yield
        rate = (self._clock() - start) / max(work, 1.0)
        self._rates[name] = min(rate, self._rates.get(name, rate))
