"""The auditor: honest providers pass under noise; wrong samples, false clocks and cached results do not."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import NamedTuple

import pytest
import torch

from mfbench.correctness import gate
from mfbench.correctness.audit import auditor as audit
from mfbench.correctness.audit import probe
from mfbench.correctness.audit.auditor import Auditor
from mfbench.correctness.audit.expected import ExpectedOutputs
from mfbench.correctness.audit.probe import Challenge, Observation
from mfbench.problems.inputs import Inputs
from mfbench.results.codes import Code, ProviderFailure
from reference import autograd_loss_and_grads
from tests.problems import draw_inputs

KNOWN, LOOPS = 7, 4


class Reading(NamedTuple):
    seconds: float
    warm_up_s: float = 0.0


class Provider:
    """A provider of known speed on a clock that only it moves."""

    def __init__(self, seconds: float = 2e-3, jitter: float = 0.2) -> None:
        self.seconds, self.jitter, self.now = seconds, jitter, 0.0
        self.clock_factor, self.cached_s = 1.0, seconds  # of the reported time; on parameters seen before
        self.late = 0  # samples that another program delays
        self.outputs: list[torch.Tensor] = []

    def evaluate(self, seconds: float) -> float:
        elapsed = seconds * (1 + random.expovariate(1 / self.jitter))
        self.now += elapsed
        return elapsed

    def place(self) -> None:
        self.outputs = []

    def sample(self, loops: int, core: int | None = None) -> Reading:
        elapsed = sum(self.evaluate(self.cached_s) for _ in range(loops))
        if self.late:
            self.late -= 1
            self.now += 1.0
        return Reading(elapsed * self.clock_factor)

    def samples_in_a_row(self, challenge: Challenge, count: int) -> Sequence[Reading]:
        return [self.sample(len(challenge.biases)) for _ in range(count)]

    def project(self, bits: bytes) -> list[float]:
        return probe.project(self.outputs, bits)

    def time_draws(self, draws: Sequence[int]) -> list[float]:
        found, last = [], None
        for number in draws:
            known = number in (last, KNOWN)
            found.append(self.evaluate(self.cached_s if known else self.seconds))
            last = number
        return found


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    return draw_inputs(40, 30, 6)


@pytest.fixture(scope="module")
def auditor(inputs: Inputs) -> Auditor:
    return Auditor(ExpectedOutputs.of(gate.standard(inputs)), KNOWN, longest_warm_up_s=0.01)


@pytest.fixture(autouse=True)
def seeded() -> None:
    random.seed(1)


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Provider:
    provider = Provider()
    monkeypatch.setattr(audit.time, "perf_counter", lambda: provider.now)
    return provider


def evaluate(inputs: Inputs, bias: float) -> list[torch.Tensor]:
    loss, grads = autograd_loss_and_grads(*inputs._replace(global_bias=torch.full_like(inputs.global_bias, bias)))
    return [loss, *grads]


def observe(inputs: Inputs, challenge: Challenge, watched_bias: float | None = None) -> list[Observation]:
    """What the probe reports of a provider that always evaluates at one bias, or at each bias in turn."""
    found = []
    for turn in sorted(challenge.watched):
        values = evaluate(inputs, challenge.biases[turn] if watched_bias is None else watched_bias)
        found.append(Observation(turn, values[0].item(), values[-1].item()))
    return found


def test_a_challenge_watches_the_last_evaluation_and_some_others(auditor: Auditor) -> None:
    for loops in (1, 2, 9, 100):
        challenge = auditor.challenge(loops)
        assert len(set(challenge.biases)) == len(challenge.biases) == loops
        assert loops - 1 in challenge.watched
        assert len(challenge.watched) == 1 + -(-(loops - 1) // audit.WATCH_EVERY)
    assert len({tuple(auditor.challenge(100).watched) for _ in range(5)}) == 5


def test_honest_samples_pass_and_cached_ones_do_not(auditor: Auditor, inputs: Inputs, provider: Provider) -> None:
    for _ in range(10):  # some of which project
        challenge = auditor.challenge(LOOPS)
        provider.outputs = evaluate(inputs, challenge.biases[-1])
        auditor.check_sample(provider, challenge, observe(inputs, challenge))
    cached = observe(inputs, challenge, watched_bias=challenge.biases[0])
    with pytest.raises(ProviderFailure, match=r"loss|global_bias") as failure:
        auditor.check_sample(provider, challenge, cached)
    assert failure.value.code is Code.WRONG_WHILE_TIMED


def test_outputs_that_no_probe_watches_are_projected(
    auditor: Auditor, inputs: Inputs, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "PROJECTED", 1.0)
    challenge = auditor.challenge(LOOPS)
    provider.outputs = evaluate(inputs, challenge.biases[-1])
    provider.outputs[1] = torch.zeros_like(provider.outputs[1])
    with pytest.raises(ProviderFailure, match="user_factors") as failure:
        auditor.check_sample(provider, challenge, observe(inputs, challenge))
    assert failure.value.code is Code.WRONG_WHILE_TIMED


@pytest.mark.parametrize("late", [0, audit.CLOCK_TRIES - 1])
def test_an_honest_clock_passes_though_other_programs_delay_it(auditor: Auditor, provider: Provider, late: int) -> None:
    original, delayed = provider.samples_in_a_row, late

    def samples_in_a_row(challenge: Challenge, count: int) -> Sequence[Reading]:
        nonlocal delayed
        provider.late = int(delayed > 0)
        delayed -= 1
        return original(challenge, count)

    provider.samples_in_a_row = samples_in_a_row
    auditor.check_clock(provider, 2e-3, LOOPS)


@pytest.mark.parametrize("factor", [0.5, 0.1])
def test_a_clock_that_leaves_time_out_is_found(auditor: Auditor, provider: Provider, factor: float) -> None:
    provider.clock_factor = factor
    with pytest.raises(ProviderFailure) as failure:
        auditor.check_clock(provider, 2e-3, LOOPS)
    assert failure.value.code is Code.CLOCK_MISMATCH


def test_time_that_a_worker_books_as_warming_up_is_limited(auditor: Auditor, provider: Provider) -> None:
    def samples_in_a_row(challenge: Challenge, count: int) -> Sequence[Reading]:
        return [Reading(reading.seconds / 10, 1e6) for reading in Provider.samples_in_a_row(provider, challenge, count)]

    provider.seconds = provider.cached_s = 0.1
    provider.samples_in_a_row = samples_in_a_row
    with pytest.raises(ProviderFailure) as failure:
        auditor.check_clock(provider, 0.01, LOOPS)
    assert failure.value.code is Code.CLOCK_MISMATCH


@pytest.mark.parametrize("seconds", [2e-3, 0.05])
def test_an_honest_provider_is_not_a_replay(auditor: Auditor, provider: Provider, seconds: float) -> None:
    provider.seconds = provider.cached_s = seconds
    auditor.check_replay(provider, seconds, seconds, LOOPS)


def test_delays_of_most_draws_are_no_replay(auditor: Auditor, provider: Provider) -> None:
    """On a busy machine a step with a pause before it waits for its second thread, one in a tight loop does not."""
    original = provider.time_draws

    def time_draws(draws: Sequence[int]) -> list[float]:
        return [elapsed + 4e-3 * (turn % 8 < 5) for turn, elapsed in enumerate(original(draws))]

    provider.time_draws = time_draws
    provider.seconds = provider.cached_s = 4e-4
    auditor.check_replay(provider, 4e-3, 4e-4, LOOPS)


@pytest.mark.parametrize("seconds", [2e-3, 0.5])
def test_a_replay_is_found_at_any_length(auditor: Auditor, provider: Provider, seconds: float) -> None:
    provider.seconds, provider.cached_s = seconds, seconds / 20
    with pytest.raises(ProviderFailure) as failure:
        auditor.check_replay(provider, seconds, provider.cached_s, LOOPS)
    assert failure.value.code is Code.REPLAYED
    assert re.search(
        r"takes \S+ s on new parameters, \S+ s on known ones and \S+ s in timed samples", str(failure.value)
    )


def test_long_evaluations_that_are_no_faster_when_timed_are_not_repeated(auditor: Auditor, provider: Provider) -> None:
    before = provider.now
    auditor.check_replay(provider, 1.1, 1.0, LOOPS)
    assert provider.now == before


def test_draws_cannot_be_foreseen() -> None:
    assert len({audit.new_draw() for _ in range(100)}) == 100
