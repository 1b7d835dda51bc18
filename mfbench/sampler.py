"""Samples of a worker's step, with an eye on its outputs and on its clock.

The global bias changes before every evaluation. Loss and bias gradient of some evaluations are looked at, nobody knows
of which, and all outputs of the last one.
"""

from __future__ import annotations

import math
import random
import secrets
import time
from collections import defaultdict
from typing import Any

import numpy as np

from mfbench.cases import Case
from mfbench.cpu import CALM_S
from mfbench.device import Reading
from mfbench.isolation import ProviderFailure, WorkerProcess
from mfbench.moving import Moving
from mfbench.projection import signs

LOOKED_AT = 8  # one evaluation in so many, and the last one
CLOCK_S = 0.04  # a sample so long shows whether the worker's clock is right; each try is of twice as long a one
CLOCK_TRIES = 4
CLOCK_FACTOR = 1.3  # what a request may take, in terms of what its worker tells of,
SLACK_S, USUAL_SLACK_S = 5e-3, 2e-3  # and beyond it; three of four requests take less
QUEUE_S = 1.0  # and on a GPU, where caches are cleared and the stream is blocked outside the sample


class Sampler:
    """Times one worker's step; holds its outputs against what is right, and its clock against the harness's."""

    def __init__(self, worker: WorkerProcess, moving: Moving, case: Case, draw_number: int, device: str) -> None:
        self.worker, self.moving = worker, moving
        self.case, self.draw_number = case, draw_number
        self.queue_s = 0.0 if device == "cpu" else QUEUE_S
        self.unseen_s: dict[int, list[float]] = defaultdict(list)  # by loops: what the worker's clock does not explain
        self.failed = False

    def __call__(self, loops: int, core: int | None = None) -> Reading:
        """A sample that begins on that core of the host; after it the worker is at rest."""
        reading, unseen_s = self.take(loops, core)
        self.unseen_s[loops].append(unseen_s)
        self._request("rest")
        return reading

    def take(self, loops: int, core: int | None = None) -> tuple[Reading, float]:
        """A sample, and how many seconds its request took beyond what the worker's clock makes likely."""
        biases = self.moving.biases(loops)
        looked_at = random.sample(range(loops - 1), math.ceil((loops - 1) / LOOKED_AT))
        start = time.perf_counter()
        reading, seen = self._request("sample", biases, [*looked_at, loops - 1], core)
        elapsed = time.perf_counter() - start
        seed = secrets.randbelow(1 << 60)
        sums = self._request("project", seed)
        wrong = [name for turn, *numbers in seen for name in self.moving.wrong_numbers(biases[turn], *numbers)]
        wrong += self.moving.wrong_projections(biases[-1], signs(seed), sums)
        if wrong:
            self.failed = True
            raise ProviderFailure("wrong", f"while it was timed, {wrong[0]} was another than it must be")
        before = min(reading.before, CALM_S + reading.seconds / loops)
        return reading, elapsed - before - CLOCK_FACTOR * reading.seconds - self.queue_s

    def place(self) -> None:
        """Draw anew where the data lies."""
        self._request("place", self.case, self.draw_number)
        self._request("rest")

    def clock_flaw(self, median_s: float, loops: int) -> str | None:
        """What is wrong with the worker's clock, if most samples took longer than it says, or if longer ones do."""
        unseen_s = float(np.quantile(self.unseen_s[loops], 0.25))
        if unseen_s <= USUAL_SLACK_S:
            unseen_s = math.inf
            for attempt in range(CLOCK_TRIES):
                unseen_s = min(unseen_s, self.take(math.ceil(2**attempt * CLOCK_S / median_s))[1])
                if unseen_s <= SLACK_S:
                    return None
        return f"{unseen_s:.2g} s a sample, and more, passed unseen by its own clock"

    def _request(self, method: str, *arguments: object) -> Any:
        try:
            return self.worker.request(method, *arguments)
        except ProviderFailure:
            self.failed = True
            raise
