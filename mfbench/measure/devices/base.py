"""What timing needs of the place where steps run: synchronise, clear the cache, read the clocks, take a sample.

`cpu.py` and `cuda.py` implement it; the tests have a simulated device whose truth is known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

Step = Callable[[], Any]  # evaluates once, and returns the outputs
Vary = Callable[[int], None]  # called before an evaluation, by its number: the inputs change
Look = Callable[[int, Any], None]  # called after it, with the outputs


def nothing(*_: Any) -> None:
    """Neither varied nor looked at."""


class Clocks(NamedTuple):
    """How fast the device runs just now."""

    mhz: float | None = None  # None: it does not tell
    limited: bool = False  # the device says that heat or power hold it back


class Reading(NamedTuple):
    """One sample."""

    seconds: float  # for all evaluations together, to completion
    cold: bool = False  # each evaluation found a last-level cache that was cleared right before it
    gaps: bool = False  # the device may have waited for the host in between
    throttled: bool = False  # the device was held back, or ran at a lower clock than it had shown
    before: float = 0.0  # seconds of the evaluations that went before and do not count
    core: int | None = None  # of the host, on which the calling thread was at the end


class Device(Protocol):
    """Where the steps of one worker run."""

    def synchronize(self) -> None:
        """Wait until everything that was asked for is done."""

    def clear_cache(self) -> bool:
        """Push all inputs out of the last-level cache; whether it is known that they are."""

    def clocks(self) -> Clocks:
        """As of now."""

    def rotation(self, input_bytes: int) -> int:
        """Through how many copies of the inputs a sample should go, so that the cache cannot hold them all."""

    def sample(
        self, steps: Sequence[Step], loops: int, vary: Vary = nothing, look: Look = nothing
    ) -> tuple[Reading, Any]:
        """Evaluate `loops` times, at least once, with the steps in turn; the last outputs.

        Others go before and do not count, unless one is known to take long. A queue is not waited for to look at the
        outputs in it.
        """
