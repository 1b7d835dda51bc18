"""Samples of a worker's step, with an eye on its outputs and on its clock.

The global bias changes before every evaluation. Loss and bias gradient of some evaluations are looked at, and all
outputs of the last one of some samples; nobody knows beforehand of which.
"""

from __future__ import annotations

import math
import random
import time
from typing import Any

from mfbench.correctness.audit.expected import Moving
from mfbench.correctness.audit.projection import new_bits, signs
from mfbench.measure.devices.base import Reading
from mfbench.measure.devices.cpu import CALM_S
from mfbench.measure.worker.process import ProviderFailure, WorkerProcess
from mfbench.problems.cases import Case
from mfbench.stats.intervals import BLOCK_ROUNDS

LOOKED_AT = 8  # one evaluation in so many, and the last one
PROJECTED = 0.25  # of the samples
CLOCK_S = 0.04  # so long, or for as many samples as there are in a placement, the worker's clock is watched
CLOCK_TRIES = 8
CLOCK_FACTOR, CLOCK_SLACK_S = 1.3, 5e-3  # what a request may take beyond the evaluations that its worker tells of
QUEUE_S = 1.0  # and on a GPU, where caches are cleared and the stream is blocked outside each sample


class Sampler:
    """Times one worker's step; holds its outputs against what is right, and its clock against the harness's."""

    def __init__(self, worker: WorkerProcess, moving: Moving, case: Case, draw_number: int, device: str) -> None:
        self.worker, self.moving = worker, moving
        self.case, self.draw_number = case, draw_number
        self.queue_s = 0.0 if device == "cpu" else QUEUE_S
        self.failed = False

    def __call__(self, loops: int, core: int | None = None) -> Reading:
        """A sample that begins on that core of the host; after it the worker is at rest."""
        biases = self.moving.biases(loops)
        looked_at = random.sample(range(loops - 1), math.ceil((loops - 1) / LOOKED_AT))
        reading, seen = self._request("sample", biases, [*looked_at, loops - 1], core)
        wrong = [name for turn, *numbers in seen for name in self.moving.wrong_numbers(biases[turn], *numbers)]
        if random.random() < PROJECTED:
            bits = new_bits()
            wrong += self.moving.wrong_projections(biases[-1], signs(bits), self._request("project", bits))
        self._request("rest")
        if wrong:
            self.failed = True
            raise ProviderFailure("wrong", f"while it was timed, {wrong[0]} was another than it must be")
        return reading

    def place(self) -> None:
        """Draw anew where the data lies."""
        self._request("place", self.case, self.draw_number)
        self._request("rest")

    def clock_flaw(self, median_s: float, loops: int) -> str | None:
        """What is wrong with the worker's clock, if samples like those that count take longer than it says."""
        unseen = []
        count = min(1 + BLOCK_ROUNDS, math.ceil(CLOCK_S / (loops * median_s)))
        for _ in range(CLOCK_TRIES):
            self.place()
            self(1)  # as in the rounds: what a provider does once for new tensors does not count
            start = time.perf_counter()
            readings = self._request("samples", self.moving.biases(loops), count)
            elapsed = time.perf_counter() - start
            told = sum(reading.seconds + min(reading.before, CALM_S + reading.seconds / loops) for reading in readings)
            if elapsed <= CLOCK_FACTOR * told + CLOCK_SLACK_S + count * self.queue_s:
                return None
            unseen.append((elapsed - told) / count)
        return f"{min(unseen):.2g} s a sample passed unseen by its own clock"

    def _request(self, method: str, *arguments: object) -> Any:
        try:
            return self.worker.request(method, *arguments)
        except ProviderFailure:
            self.failed = True
            raise
