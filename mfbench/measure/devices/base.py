"""The interface of a device: synchronise, clear the cache, read the clocks, take a sample.

`cpu.py` and `cuda.py` implement it, and the tests have a simulated device with known timings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

Step = Callable[[], Any]  # evaluates once and returns the outputs


class Hooks(Protocol):
    """Called around each evaluation that counts, with its number."""

    def before(self, turn: int) -> None:
        """Run before the evaluation."""

    def after(self, turn: int, outputs: Any) -> None:
        """Run after the evaluation."""


class NoHooks:
    """No-op hooks."""

    def before(self, turn: int) -> None:
        pass

    def after(self, turn: int, outputs: Any) -> None:
        pass


NO_HOOKS = NoHooks()


class Clocks(NamedTuple):
    """Clock state of a device."""

    mhz: float | None = None  # None: unknown
    limited: bool = False  # the driver reports that heat or the power supply limits the clock


class Reading(NamedTuple):
    """One sample."""

    seconds: float  # for all evaluations together, to completion
    cold: bool = False  # each evaluation started with a cleared last-level cache
    gaps: bool = False  # the device may have waited for the host between evaluations
    throttled: bool = False  # the clock was limited, or lower than seen before
    warm_up_s: float = 0.0  # seconds of the evaluations before it that do not count
    core: int | None = None  # host core that the calling thread was on at the end


class Device(Protocol):
    """Where the steps of one worker run."""

    def synchronize(self) -> None:
        """Wait until all submitted work is done."""

    def clear_cache(self) -> bool:
        """Evict all inputs from the last-level cache; return whether that is known to work."""

    def clocks(self) -> Clocks:
        """Return the current clock state."""

    def rotation(self, input_bytes: int) -> int:
        """Return how many copies of the inputs a sample should cycle through so that they exceed the cache."""

    def sample(self, steps: Sequence[Step], loops: int, hooks: Hooks = NO_HOOKS) -> tuple[Reading, Any]:
        """Evaluate `loops` times, at least once, cycling through the steps; return the last outputs too.

        Uncounted evaluations may come first to warm up. An asynchronous device calls `hooks.after` for the last
        evaluation alone, since reading earlier outputs would stall the queue.
        """
