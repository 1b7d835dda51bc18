"""Take samples on an asynchronous device, between marks in its queue rather than between calls on the host.

A sample is enqueued behind a kernel that blocks the queue, so that the device starts when all of it has been enqueued;
otherwise a short step would be timed with the gaps in which the device waits for the next launch. Whether the block
lasted long enough is checked afterwards. The cache is cleared before each evaluation, outside the marks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from mfbench.measure.devices.base import NO_HOOKS, Clocks, Hooks, Reading, Step

BATCH = 16  # evaluations behind one block; a queue holds about a thousand launches
BLOCK_S = 2e-3  # length of the first block
LONGEST_BLOCK_S = 0.3  # beyond it, no block is tried
THROTTLED_BELOW = 0.9  # fraction of the highest clock seen, below which the device counts as throttled


class Queue(Protocol):
    """A device that executes what is enqueued, in order."""

    def synchronize(self) -> None:
        """Wait until the queue is empty."""

    def clear_cache(self) -> bool:
        """Enqueue clearing the cache; return whether that is known to work."""

    def clocks(self) -> Clocks:
        """Return the current clock state."""

    def mark(self) -> Any:
        """Enqueue a mark that records the device's time."""

    def between(self, start: Any, end: Any) -> float:
        """Return the seconds between two marks that the device has passed."""

    def block(self, seconds: float) -> Any:
        """Enqueue a wait of about that length; return the mark at its end."""

    def passed(self, mark: Any) -> bool:
        """Return whether the device has passed the mark."""


class StreamSampler:
    """Takes samples on a queue, and remembers the required block length and the highest clock."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.block_s = BLOCK_S  # 0: no block lasts long enough
        self.highest_mhz = 0.0

    def sample(self, steps: Sequence[Step], loops: int, hooks: Hooks = NO_HOOKS) -> tuple[Reading, Any]:
        """Take a sample as `mfbench.measure.devices.base.Device.sample` does, without calling `hooks.after`.

        What `hooks.before` enqueues is outside the marks.
        """
        outputs = steps[-1]()  # raises the clocks, which drop while the device is idle
        self.queue.synchronize()
        before = self.queue.clocks()
        seconds, cold, gaps = 0.0, True, False
        for first in range(0, loops, BATCH):
            batch, outputs = self._batch(steps, range(first, min(first + BATCH, loops)), hooks)
            seconds, cold, gaps = seconds + batch.seconds, cold and batch.cold, gaps or batch.gaps
        after = self.queue.clocks()
        throttled = self._throttled(before) or self._throttled(after)
        return Reading(seconds, cold, gaps, throttled), outputs

    def _batch(self, steps: Sequence[Step], turns: range, hooks: Hooks) -> tuple[Reading, Any]:
        """Enqueue behind longer and longer blocks until one lasts long enough; for a step that waits, none does."""
        while True:
            end_of_block = self.queue.block(self.block_s) if self.block_s else None
            spans, cold = [], True
            for turn in turns:
                hooks.before(turn)
                cold = self.queue.clear_cache() and cold
                start = self.queue.mark()
                outputs = steps[turn % len(steps)]()
                spans.append((start, self.queue.mark()))
            gaps = end_of_block is None or self.queue.passed(end_of_block)
            self.queue.synchronize()
            if not gaps or not self.block_s:
                return Reading(sum(self.queue.between(*span) for span in spans), cold, gaps), outputs
            self.block_s = 2 * self.block_s if self.block_s < LONGEST_BLOCK_S else 0.0

    def _throttled(self, clocks: Clocks) -> bool:
        if clocks.mhz is None:
            return clocks.limited
        self.highest_mhz = max(self.highest_mhz, clocks.mhz)
        return clocks.limited or clocks.mhz < THROTTLED_BELOW * self.highest_mhz
