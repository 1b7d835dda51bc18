"""The harness's side of the audit: challenge samples, check their outputs, and check clock and caching afterwards.

`Auditor` issues a `Challenge` for every sample, the worker's `probe.Probe` carries it out around each evaluation, and
`Auditor` checks what the probe observed.
"""

from __future__ import annotations

import math
import random
import secrets
import time
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from mfbench.correctness.audit.expected import ExpectedOutputs
from mfbench.correctness.audit.probe import Challenge, Observation
from mfbench.correctness.audit.projection import new_bits, signs
from mfbench.results.codes import Code, ProviderFailure
from mfbench.stats.intervals import BLOCK_ROUNDS

WATCH_EVERY = 8  # one evaluation in this many is watched, and the last one of the sample
PROJECTED = 0.25  # fraction of samples whose outputs are all checked, by a projection

CLOCK_S = 0.04  # the clock check takes samples for this long, or one placement's worth, whichever is shorter
CLOCK_TRIES = 8  # the clock is wrong if every try says so
CLOCK_FACTOR, CLOCK_SLACK_S = 1.3, 5e-3  # time a request may take beyond the time its worker reports

BRIEF_S = 0.01  # evaluations shorter than this are noisy enough to hide a cache lookup, so all are checked for replays
REPLAY_TURNS = 7  # a replay must show in every turn
REPLAY_EVALUATIONS = (16, 64)  # fewest and most evaluations per turn
REPLAY_QUANTILE = 0.25  # of their times: other programs delay many of them where they do not delay a tight loop
REPLAY_FACTOR, REPLAY_SLACK_S = 4.0, 1e-4  # time an evaluation may take on new parameters beyond one while timed
SAME_FACTOR = 1.5  # the same beyond an evaluation on known parameters under otherwise equal conditions


class SampleTimes(Protocol):
    """One sample, as far as the audit looks at it."""

    @property
    def seconds(self) -> float:
        """Return the worker's time for all evaluations that count."""

    @property
    def warm_up_s(self) -> float:
        """Return the worker's time for the evaluations before them."""


class Audited(Protocol):
    """What the audit asks of the provider it checks. Each method raises `ProviderFailure` where the provider fails."""

    def place(self) -> None:
        """Move the inputs in memory, with the known parameters."""

    def sample(self, loops: int, core: int | None = None) -> SampleTimes:
        """Take a sample."""

    def samples_in_a_row(self, challenge: Challenge, count: int) -> Sequence[SampleTimes]:
        """Take samples with nothing between them."""

    def project(self, bits: bytes) -> list[float]:
        """Return the projections of the last sample's outputs."""

    def time_draws(self, draws: Sequence[int]) -> list[float]:
        """Return the seconds of an evaluation on each of the parameter draws."""


class Auditor:
    """Checks one provider in one case."""

    def __init__(
        self, expected: ExpectedOutputs, known_draw: int, longest_warm_up_s: float, overhead_s: float = 0.0
    ) -> None:
        """Prepare to check a provider.

        Args:
            expected: outputs on the parameters it is timed on.
            known_draw: the number of their draw.
            longest_warm_up_s: of a sample on an honest worker, beyond one evaluation.
            overhead_s: untimed work of a device around each sample, such as clearing caches.
        """
        self._expected, self._known_draw = expected, known_draw
        self._longest_warm_up_s, self._overhead_s = longest_warm_up_s, overhead_s

    def challenge(self, loops: int) -> Challenge:
        """Return unpredictable biases for a sample, and which of its evaluations to watch."""
        watched = random.sample(range(loops - 1), math.ceil((loops - 1) / WATCH_EVERY))
        return Challenge(self._expected.biases(loops), frozenset((*watched, loops - 1)))

    def check_sample(self, provider: Audited, challenge: Challenge, observations: Sequence[Observation]) -> None:
        """Check what the probe observed during a sample, and now and then all outputs of its last evaluation.

        Raises:
            ProviderFailure: an output is wrong.
        """
        biases = challenge.biases
        wrong = [
            name for turn, *numbers in observations for name in self._expected.wrong_numbers(biases[turn], *numbers)
        ]
        if random.random() < PROJECTED:
            bits = new_bits()
            wrong += self._expected.wrong_projections(biases[-1], signs(bits), provider.project(bits))
        if wrong:
            raise ProviderFailure(Code.WRONG_WHILE_TIMED, f"{wrong[0]} was wrong in a timed sample")

    def check_clock(self, provider: Audited, median_s: float, loops: int) -> None:
        """Compare the worker's clock with the harness's, on samples of the length that was timed.

        Args:
            provider: the provider to check.
            median_s: seconds per evaluation, as timed.
            loops: evaluations per sample, as timed.

        Raises:
            ProviderFailure: the samples took longer than the worker says.
        """
        missing = []
        count = min(1 + BLOCK_ROUNDS, math.ceil(CLOCK_S / (loops * median_s)))
        for _ in range(CLOCK_TRIES):
            provider.place()
            provider.sample(1)  # as in the rounds: one-off work for new tensors does not count
            challenge = Challenge(self._expected.biases(loops), frozenset())
            start = time.perf_counter()
            readings = provider.samples_in_a_row(challenge, count)
            elapsed = time.perf_counter() - start
            reported = sum(
                reading.seconds + min(reading.warm_up_s, self._longest_warm_up_s + reading.seconds / loops)
                for reading in readings
            )
            if elapsed <= CLOCK_FACTOR * reported + CLOCK_SLACK_S + count * self._overhead_s:
                return
            missing.append((elapsed - reported) / count)
        raise ProviderFailure(
            Code.CLOCK_MISMATCH, f"its clock leaves out {min(missing):.2g} s a sample that the harness's clock sees"
        )

    def check_replay(self, provider: Audited, new_s: float, median_s: float, loops: int) -> None:
        """Compare the speed on parameters that the provider has and has not seen; cached results show here.

        Args:
            provider: the provider to check.
            new_s: seconds of one evaluation on new parameters; those that are long and no slower are not checked.
            median_s: seconds per evaluation, as timed.
            loops: evaluations per sample, as timed.

        Raises:
            ProviderFailure: it was slower on new parameters in every turn.
        """
        if median_s >= BRIEF_S and not _replayed(new_s, median_s):
            return
        fewest, most = REPLAY_EVALUATIONS
        count = min(max(fewest, loops), most)
        on_new, on_known, timed = [], [], []
        for _ in range(REPLAY_TURNS):
            first = new_draw()
            on_new.append(_typical(provider.time_draws(range(first, first + count))))
            on_known.append(_typical(provider.time_draws([self._known_draw] * count)))
            timed.append(provider.sample(loops).seconds / loops)
        slower = all(new > SAME_FACTOR * known for new, known in zip(on_new, on_known, strict=True))
        if slower or all(map(_replayed, on_new, map(min, on_known, timed))):
            new, known, in_samples = (f"{np.median(seconds):.2g} s" for seconds in (on_new, on_known, timed))
            raise ProviderFailure(
                Code.REPLAYED, f"takes {new} on new parameters, {known} on known ones and {in_samples} in timed samples"
            )


def new_draw() -> int:
    """Return an unpredictable number for a draw of parameters."""
    return secrets.randbelow(1 << 60)


def _typical(seconds: Sequence[float]) -> float:
    """Return a low quantile of the second half: a cheat may trust contents only after a while."""
    return float(np.quantile(seconds[len(seconds) // 2 :], REPLAY_QUANTILE))


def _replayed(new_s: float, known_s: float) -> bool:
    """Return whether an evaluation is so much faster on known parameters that it cannot have done the work again."""
    return new_s > REPLAY_FACTOR * known_s + REPLAY_SLACK_S
