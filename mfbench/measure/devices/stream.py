"""Samples on a device that works through a queue: between marks in the queue, not between calls on the host.

A sample is enqueued behind a block, so that the device starts when all of it is there: else a short step would be
timed with the gaps in which the device waits for the next launch. Whether the block held is looked at afterwards. The
cache is cleared before each evaluation, outside the marks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from mfbench.measure.devices.base import Clocks, Reading, Step, Vary, nothing

BATCH = 16  # evaluations behind one block: a queue has room for about a thousand launches
BLOCK_S = 2e-3  # the first block's length
LONGEST_BLOCK_S = 0.3
SLOWED = 0.9  # of the highest clock seen; below it, a device is throttled whether it says so or not


class Queue(Protocol):
    """A device that runs what is enqueued, in order."""

    def synchronize(self) -> None: ...

    def clear_cache(self) -> bool:
        """Enqueue the clearing."""

    def clocks(self) -> Clocks: ...

    def mark(self) -> Any:
        """Enqueue a mark that notes the device's time."""

    def between(self, start: Any, end: Any) -> float:
        """Seconds between two marks that the device has passed."""

    def block(self, seconds: float) -> Any:
        """Enqueue about so long a wait; the mark at its end."""

    def passed(self, mark: Any) -> bool: ...


class Sampler:
    """Takes samples on a queue; remembers how long a block has to be, and the highest clock."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.block_s = BLOCK_S  # 0 where no block holds
        self.highest_mhz = 0.0

    def sample(self, steps: Sequence[Step], loops: int, vary: Vary = nothing) -> tuple[Reading, Any]:
        """As `mfbench.measure.devices.base.Device.sample` says; what varies is enqueued outside the marks."""
        outputs = steps[-1]()  # raises the clocks, which fall while the device is idle
        self.queue.synchronize()
        before = self.queue.clocks()
        seconds, cold, gaps = 0.0, True, False
        for first in range(0, loops, BATCH):
            batch, outputs = self._batch(steps, range(first, min(first + BATCH, loops)), vary)
            seconds, cold, gaps = seconds + batch.seconds, cold and batch.cold, gaps or batch.gaps
        after = self.queue.clocks()
        throttled = self._throttled(before) or self._throttled(after)
        return Reading(seconds, cold, gaps, throttled), outputs

    def _batch(self, steps: Sequence[Step], turns: range, vary: Vary) -> tuple[Reading, Any]:
        """Enqueue behind longer and longer blocks until one holds; where a step waits for the device, none does."""
        while True:
            end_of_block = self.queue.block(self.block_s) if self.block_s else None
            spans, cold = [], True
            for turn in turns:
                vary(turn)
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
        return clocks.limited or clocks.mhz < SLOWED * self.highest_mhz
