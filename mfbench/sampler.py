"""Samples of a worker's step, with an eye on its outputs and on its clock."""

from __future__ import annotations

import math
import time
from typing import Any

from mfbench.cases import Case
from mfbench.cpu import CALM_S
from mfbench.device import Reading
from mfbench.gate import Standard
from mfbench.isolation import ProviderFailure, WorkerProcess

CLOCK_S = 0.04  # a sample so long shows whether the worker's clock is right; each try is of twice as long a one
CLOCK_TRIES = 4
CLOCK_FACTOR, CLOCK_SLACK_S = 1.3, 5e-3  # what a request may take beyond the evaluations that its worker tells of
QUEUE_SLACK_S = 1.0  # the same on a GPU, where caches are cleared and the stream is blocked outside the sample


class Sampler:
    """Times one worker's step; holds its last outputs against what is right, and its clock against the harness's."""

    def __init__(self, worker: WorkerProcess, standard: Standard, case: Case, draw_number: int, device: str) -> None:
        self.worker, self.standard = worker, standard
        self.case, self.draw_number = case, draw_number
        self.slack_s = CLOCK_SLACK_S if device == "cpu" else QUEUE_SLACK_S
        self.failed = False

    def __call__(self, loops: int, core: int | None = None) -> Reading:
        """A sample that begins on that core of the host; after it the worker is at rest."""
        reading = self._sample(loops, core)
        self._request("rest")
        return reading

    def _sample(self, loops: int, core: int | None = None) -> Reading:
        reading, sums = self._request("sample", loops, core)
        wrong = self.standard.wrong_sums(sums)
        if wrong:
            self.failed = True
            raise ProviderFailure("wrong", f"while it was timed, the sum over {wrong[0]} was another than it must be")
        return reading

    def place(self) -> None:
        """Draw anew where the data lies."""
        self._request("place", self.case, self.draw_number)
        self._request("rest")

    def clock_flaw(self, median_s: float) -> str | None:
        """What is wrong with the worker's clock, if every request takes longer than the worker says."""
        unseen = []
        for attempt in range(CLOCK_TRIES):
            loops = math.ceil(2**attempt * CLOCK_S / median_s)
            start = time.perf_counter()
            reading = self._sample(loops)
            elapsed = time.perf_counter() - start
            told = reading.seconds + min(reading.before, CALM_S + reading.seconds / loops)
            if elapsed <= CLOCK_FACTOR * told + self.slack_s:
                return None
            unseen.append(elapsed - told)
        return f"{min(unseen):.2g} s a sample passed unseen by its own clock"

    def _request(self, method: str, *arguments: object) -> Any:
        try:
            return self.worker.request(method, *arguments)
        except ProviderFailure:
            self.failed = True
            raise
