"""One case: every provider gated, timed in rounds, and gated again on parameters that it had not seen."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from mfbench import gate, results, roofline
from mfbench.device import Reading
from mfbench.foreign import ForeignLoad
from mfbench.inputs import draw, redraw_parameters
from mfbench.isolation import ProviderFailure, WorkerProcess
from mfbench.records import Correctness, Record, Status
from mfbench.results import Origin
from mfbench.timing import Hands, Timing, time_in_rounds
from mfbench.worker import Evaluated, Prepared

CLOCK_SLACK_S, CLOCK_SLACK = 10e-3, 2.0  # what a sample may take beyond the time that its worker reports
SETTLE_S = 5e-3  # before a sample: the threads of the provider that ran last spin on for a while
REPLAY_SLACK_S, REPLAY_FACTOR = 5e-4, 4.0  # how much longer a step may take the first time it sees parameters


class Trial:
    """A case with its providers' workers; `run` gives every provider one record."""

    def __init__(self, origin: Origin, workers: dict[str, WorkerProcess], progress: Callable[[str], None]) -> None:
        self.origin, self.case, self.workers, self.progress = origin, origin.case, workers, progress
        self.failed: dict[str, Record] = {}
        self.prepared: dict[str, Prepared] = {}
        self.correctness: dict[str, dict[str, Correctness]] = {}

    def run(self, baseline: str, margin: float, budget_s: float, family: int = 1) -> dict[str, Record]:
        """Gate, time, gate again. The verdicts of a `family` of so many comparisons are to hold together."""
        self.progress("oracle")
        inputs = draw(self.case)
        standard = gate.standard(inputs)
        for name in self.workers:
            self.progress(f"gate {name}")
            self._gate(name, standard.coarsened(self._eps(name)))
        rounds = self._time(standard, baseline, budget_s)
        if rounds:
            self.progress("gate again")
            number = secrets.randbelow(1 << 30)
            unseen = standard.moved_to(inputs._replace(**redraw_parameters(self.case, number)))
            for name in rounds.samples:
                self._gate_again(name, number, unseen.coarsened(self._eps(name)), rounds)
        for name in self.workers:
            self._ask(name, "release")
        records = dict(self.failed)
        honest = [name for name in self.workers if name not in records]
        if rounds and honest:
            ceilings = roofline.measure(self.case, self.origin.device)
            for name in honest:
                parts = results.timed(self.origin, name, rounds, baseline, margin, family, ceilings)
                prepared = self.prepared[name]
                records[name] = self.origin.record(
                    name,
                    "ok",
                    correctness=self.correctness[name],
                    compile_s=max(0.0, prepared.first_s - prepared.second_s),
                    peak_bytes=prepared.peak_bytes,
                    **parts,
                )
        return records

    def _gate(self, name: str, standard: gate.Standard) -> None:
        prepared = self._ask(name, "prepare", self.case)
        if prepared is None:
            return
        self.prepared[name] = prepared
        self._judge(name, standard, prepared.evaluated)

    def _gate_again(self, name: str, number: int, unseen: gate.Standard, rounds: Timing) -> None:
        """The same step on new contents of the same tensors: a result kept from an earlier call is wrong there."""
        evaluated = self._ask(name, "evaluate_anew", self.case, number)
        if evaluated is None:
            return
        self._judge(name, unseen, evaluated, "after timing, on parameters it had not seen: ")
        if _replayed(evaluated.seconds, float(np.median(rounds.samples[name]))):
            pairs = self._ask(name, "fresh_and_repeated", self.case, number + 1)
            if pairs and all(_replayed(fresh, repeated) for fresh, repeated in pairs):
                fresh, repeated = (float(np.median(seconds)) for seconds in zip(*pairs, strict=True))
                self._fail(name, "wrong", f"takes {fresh:.2g} s on new parameters and {repeated:.2g} s on them again")

    def _judge(self, name: str, standard: gate.Standard, evaluated: Evaluated, when: str = "") -> None:
        verdicts = standard.judge(evaluated.outputs)
        self.correctness[name] = results.correctness(verdicts)
        reasons = [
            f"{output} is off by {verdict.error:.2g}, allowed {verdict.bound:.2g}"
            for output, verdict in verdicts.items()
            if not verdict.ok
        ]
        reasons += evaluated.flaws
        if reasons:
            self._fail(name, "wrong", when + "; ".join(reasons))

    def _time(self, standard: gate.Standard, baseline: str, budget_s: float) -> Timing | None:
        """Samples of all that passed; where one fails under way, the others start again without it."""
        while competing := [name for name in self.workers if name not in self.failed]:
            self.progress("timing")
            samplers = {name: _Sampler(self.workers[name], standard.coarsened(self._eps(name))) for name in competing}
            estimates = {name: self.prepared[name].second_s for name in competing}
            pivot = baseline if baseline in competing else competing[0]
            try:
                rounds = time_in_rounds(self._hands(samplers), pivot, budget_s, self.case.seed, estimates)
            except ProviderFailure as failure:
                culprit = next(name for name in competing if samplers[name].failed)
                self._fail(culprit, failure.status, failure.reason)
                continue
            for name, sampler in samplers.items():
                sample_s = rounds.samples[name].min() * rounds.loops[name]
                if sampler.hidden_s > CLOCK_SLACK_S + CLOCK_SLACK * sample_s:
                    self._fail(name, "wrong", f"{sampler.hidden_s:.2g} s a sample passed unseen by its own clock")
            return rounds
        return None

    def _hands(self, samplers: dict[str, _Sampler]) -> Hands:
        def place() -> None:
            for sampler in samplers.values():
                sampler.place()

        foreign = ForeignLoad(worker.pid for worker in self.workers.values() if worker.pid is not None)
        return Hands(samplers, place, foreign.cores)

    def _ask(self, name: str, method: str, *arguments: object):
        try:
            return self.workers[name].request(method, *arguments)
        except ProviderFailure as failure:
            self._fail(name, failure.status, failure.reason)
            return None

    def _fail(self, name: str, status: Status, reason: str) -> None:
        self.failed.setdefault(name, self.origin.record(name, status, reason, correctness=self.correctness.get(name)))

    def _eps(self, name: str) -> float:
        if self.origin.device == "cpu":
            return 0.0
        return gate.PRECISION_EPS.get(name.partition("@")[0].removeprefix("fused-"), 0.0)


def _replayed(fresh_s: float, repeated_s: float) -> bool:
    """Whether a step is so much quicker where it has seen the parameters that it cannot have done the work again."""
    return fresh_s > REPLAY_FACTOR * repeated_s + REPLAY_SLACK_S


class _Sampler:
    """Times a worker's step; holds its last outputs against the gate, and its clock against the harness's."""

    def __init__(self, worker: WorkerProcess, standard: gate.Standard) -> None:
        self.worker, self.standard = worker, standard
        self.hidden_s = float("inf")  # least time of a request beyond what the worker says its sample took
        self.failed = False

    def __call__(self, loops: int) -> Reading:
        time.sleep(SETTLE_S)
        start = time.perf_counter()
        reading, sums = self._request("sample", loops)
        self.hidden_s = min(self.hidden_s, time.perf_counter() - start - reading.seconds)
        wrong = self.standard.wrong_sums(sums)
        if wrong:
            self.failed = True
            raise ProviderFailure("wrong", f"while it was timed, the sum over {wrong[0]} was another than at the gate")
        return reading

    def place(self) -> None:
        self._request("place")

    def _request(self, method: str, *arguments: object) -> Any:
        try:
            return self.worker.request(method, *arguments)
        except ProviderFailure:
            self.failed = True
            raise
