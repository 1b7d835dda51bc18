"""Samples on a queue: what is enqueued in which order, blocks that must last, and throttled clocks.

The queue is simulated: no GPU runs here and nothing is timed.
"""

from __future__ import annotations

from typing import Any

import pytest

from mfbench.measure.devices import stream
from mfbench.measure.devices.base import Clocks

STEP_S, ENQUEUE_S = 1e-3, 1e-4


class Queue:
    """A device that takes STEP_S for a step, behind a host that takes ENQUEUE_S to enqueue one."""

    def __init__(self) -> None:
        self.host_s = self.device_s = 0.0
        self.log: list[str] = []
        self.blocks: list[float] = []
        self.states = [Clocks()]

    def enqueue(self, name: str, seconds: float) -> None:
        self.log.append(name)
        self.host_s += ENQUEUE_S
        self.device_s = max(self.device_s, self.host_s) + seconds

    def step(self) -> str:
        self.enqueue("step", STEP_S)
        return "outputs"

    def waiting_step(self) -> str:
        """A step that waits for the device, as `.item()` does."""
        self.step()
        self.synchronize()
        return "outputs"

    def synchronize(self) -> None:
        self.host_s = max(self.host_s, self.device_s)

    def clear_cache(self) -> bool:
        self.enqueue("clear", 0.0)
        return True

    def clocks(self) -> Clocks:
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]

    def mark(self) -> float:
        return max(self.device_s, self.host_s)

    def between(self, start: float, end: float) -> float:
        return end - start

    def block(self, seconds: float) -> float:
        self.blocks.append(seconds)
        self.enqueue("block", seconds)
        return self.device_s

    def passed(self, mark: float) -> bool:
        return self.host_s >= mark


def sampler(queue: Queue) -> Any:
    return next(value for name, value in vars(stream).items() if name.endswith("Sampler"))(queue)


def test_many_evaluations_are_taken_in_batches_behind_blocks() -> None:
    queue, loops = Queue(), 2 * stream.BATCH + 1
    reading, outputs = sampler(queue).sample([queue.step], loops)
    assert reading.seconds == pytest.approx(loops * STEP_S)
    assert (reading.cold, reading.gaps, reading.throttled, outputs) == (True, False, False, "outputs")
    last = queue.log[len(queue.log) - queue.log[::-1].index("block") :]
    assert last == ["clear", "step"]  # the third batch
    assert queue.log.count("step") >= loops + 1  # one more goes before


def test_blocks_grow_until_one_outlasts_the_enqueuing() -> None:
    queue = Queue()
    device = sampler(queue)
    needed = 2 * stream.BATCH * ENQUEUE_S
    assert stream.BLOCK_S < needed < stream.LONGEST_BLOCK_S
    assert not device.sample([queue.step], stream.BATCH)[0].gaps
    assert queue.blocks == [stream.BLOCK_S, 2 * stream.BLOCK_S]
    assert not device.sample([queue.step], stream.BATCH)[0].gaps
    assert queue.blocks[2:] == [2 * stream.BLOCK_S]  # remembered


def test_a_step_that_waits_for_the_device_is_timed_with_gaps() -> None:
    queue = Queue()
    device = sampler(queue)
    reading, _ = device.sample([queue.waiting_step], 2)
    assert reading.gaps
    assert max(queue.blocks) < 2 * stream.LONGEST_BLOCK_S
    tried = len(queue.blocks)
    assert device.sample([queue.waiting_step], 2)[0].gaps
    assert len(queue.blocks) == tried  # not tried again


@pytest.mark.parametrize(
    ("before", "after", "throttled"),
    [
        (Clocks(2000.0), Clocks(1900.0), False),
        (Clocks(2000.0), Clocks(1700.0), True),
        (Clocks(1700.0), Clocks(2000.0), False),  # it was still speeding up
        (Clocks(2000.0), Clocks(2000.0, limited=True), True),
        (Clocks(None, limited=True), Clocks(), True),
        (Clocks(), Clocks(), False),
    ],
)
def test_low_and_limited_clocks_are_throttled(before: Clocks, after: Clocks, throttled: bool) -> None:
    queue = Queue()
    queue.states = [before, after]
    assert sampler(queue).sample([queue.step], 1)[0].throttled is throttled
