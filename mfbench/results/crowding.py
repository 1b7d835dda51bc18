"""How much longer other programs may have made one side of a comparison take, from the cores that they took."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

MOST_SHARING = 2.0  # programs on each core of the run, on average, up to which a bound is known


class Crowding(NamedTuple):
    """Other programs beside at least half of the rounds of a measurement."""

    cores: int  # that the run could use
    threads: int  # of the run
    foreign: float | None  # cores that other programs took in those rounds; None: unknown

    @property
    def slowdown(self) -> float:
        """Return the factor by which one side alone may have been slowed down; infinite where no bound is known.

        The rounds do not show that factor: where the system places a thread may last as long as its process. Threads
        that need `threads` cores and get what others leave share each core among `threads / left` programs on average.
        Schedulers balance queues to within one program, so one side may have had that number and one more on its core,
        while the other side had a core to itself.

        There is no bound once more than two programs share each core. A sample is then shorter than a round of their
        time slices (3 ms or more each), so whether it holds a slice of another program is the scheduler's choice; and
        what is left is so little that the error of measuring it, a tenth of a core, decides.
        """
        if self.foreign is None:
            return math.inf
        left, needed = self.cores - self.foreign, min(self.threads, self.cores)
        sharing = max(1.0, needed / left) if left > 0 else math.inf
        return 1 + sharing if sharing <= MOST_SHARING else math.inf

    def __str__(self) -> str:
        if self.foreign is None:
            return "other programs ran in most rounds, and how many cores they took was not recorded"
        took = f"other programs took {min(self.foreign, self.cores):.2g} of {self.cores} cores"
        if math.isfinite(self.slowdown):
            return f"{took}, so only a factor of {self.slowdown:.2g} is a verdict"
        return f"{took}, so nothing is a verdict"


def crowding(
    rounds: int, disturbed: int | None, foreign_cores: float | None, env: Mapping[str, Any]
) -> Crowding | None:
    """Return what other programs did to a measurement; None if fewer than half of its rounds were disturbed.

    Args:
        rounds: of the measurement.
        disturbed: rounds in which other programs ran; None: unknown, as on a GPU.
        foreign_cores: cores that they took on average over all rounds; None: unknown.
        env: of the record.
    """
    if not disturbed or 2 * disturbed < rounds:
        return None
    cores, threads = env.get("cpus"), env.get("threads")
    if foreign_cores is None or not cores or not threads:
        return Crowding(cores or 0, threads or 0, None)
    return Crowding(cores, threads, foreign_cores * rounds / disturbed)  # at most: the other rounds had some, too


def worst(*found: Crowding | None) -> Crowding | None:
    """Return the crowding that allows the largest factor; None if there is none."""
    return max(filter(None, found), key=lambda one: one.slowdown, default=None)
