"""One case: every provider gated, timed in rounds, and gated again on parameters that it had not seen."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from mfbench.correctness import gate
from mfbench.correctness.audit.expected import Moving
from mfbench.measure import recording, roofline
from mfbench.measure.devices.load import ForeignLoad
from mfbench.measure.recording import Origin
from mfbench.measure.rounds import Hands, Timing, time_in_rounds
from mfbench.measure.sampler import Sampler
from mfbench.measure.worker.main import Evaluated, Prepared
from mfbench.measure.worker.process import ProviderFailure, WorkerProcess
from mfbench.problems.cases import Case
from mfbench.problems.inputs import Inputs, draw, redraw_parameters
from mfbench.results.records import Correctness, Record, Status

TURNS = 7
IN_A_ROW = (8, 64)  # fewest and most evaluations of a turn
BRIEF_S = 0.01  # an evaluation that takes longer does not hide what it saves among its noise
REPLAY_FACTOR, REPLAY_SLACK_S = 4.0, 1e-4  # how much longer an evaluation may take on parameters it has not seen
SAME_FACTOR = 1.5  # the same, where nothing else is different


class Trial:
    """A case with its providers' workers; `run` gives every provider one record."""

    def __init__(self, origin: Origin, workers: dict[str, WorkerProcess], progress: Callable[[str], None]) -> None:
        self.origin, self.case, self.workers, self.progress = origin, origin.case, workers, progress
        self.failed: dict[str, Record] = {}
        self.prepared: dict[str, Prepared] = {}
        self.samplers: dict[str, Sampler] = {}
        self.correctness: dict[str, dict[str, Correctness]] = {}

    def run(self, baseline: str, margin: float, budget_s: float, family: int = 1) -> dict[str, Record]:
        """Gate, time, gate again. The verdicts of a `family` of so many comparisons are to hold together."""
        self.progress("oracle")
        inputs = draw(self.case)
        standard = gate.standard(inputs)
        for name in self.workers:
            self.progress(f"gate {name}")
            self._gate(name, standard.coarsened(self._eps(name)))
        timed, unseen = _Draw.of(standard, inputs, self.case), _Draw.of(standard, inputs, self.case)
        rounds = self._time(timed, baseline, budget_s)
        if rounds:
            self.progress("gate again")
            for name in [name for name in rounds.samples if name not in self.failed]:
                self._gate_again(name, timed, unseen, rounds)
        for name, worker in self.workers.items():
            if worker.pid is not None:  # it has not died
                self._ask(name, "release")
        records = dict(self.failed)
        honest = [name for name in self.workers if name not in records]
        if rounds and honest:
            against = baseline if baseline in honest else None
            ceilings, observed = roofline.measure(self.case, self.origin.device), inputs.observed
            for name in honest:
                parts = recording.timed(self.origin, name, rounds, against, margin, family, ceilings, observed)
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

    def _gate_again(self, name: str, timed: _Draw, unseen: _Draw, rounds: Timing) -> None:
        """The same step on new contents of the same tensors: a result kept from an earlier call is wrong there."""
        evaluated = self._ask(name, "evaluate_anew", self.case, unseen.number)
        if evaluated is None:
            return
        self._judge(
            name, unseen.standard.coarsened(self._eps(name)), evaluated, "after timing, on parameters it had not seen: "
        )
        median = float(np.median(rounds.samples[name]))
        if median < BRIEF_S or _replayed(evaluated.seconds, median):
            self._compare_new_and_known(name, timed.number, rounds.loops[name])

    def _compare_new_and_known(self, name: str, known: int, loops: int) -> None:
        """In every turn faster where it has seen the parameters: it keeps results by their contents."""
        fewest, most = IN_A_ROW
        count = min(max(fewest, loops), most)
        new_s, known_s, sampled_s = [], [], []
        for _ in range(TURNS):
            pair = self._ask(name, "changing_and_same", self.case, _Draw.new_number(), known, count)
            if pair is None:
                return
            reading = self._attempt(name, self.samplers[name], loops)
            if reading is None:
                return
            new_s.append(pair[0])
            known_s.append(pair[1])
            sampled_s.append(reading.seconds / loops)
        fastest_s = list(map(min, known_s, sampled_s))
        slower = all(new > SAME_FACTOR * same for new, same in zip(new_s, known_s, strict=True))
        if slower or all(map(_replayed, new_s, fastest_s)):
            self._fail(
                name,
                "wrong",
                f"takes {np.median(new_s):.2g} s on new parameters and {np.median(fastest_s):.2g} s on others",
            )

    def _judge(self, name: str, standard: gate.Standard, evaluated: Evaluated, when: str = "") -> None:
        verdicts = standard.judge(evaluated.outputs)
        self.correctness[name] = recording.correctness(verdicts)
        if reasons := gate.complaints(verdicts, evaluated.flaws):
            self._fail(name, "wrong", when + "; ".join(reasons))

    def _time(self, timed: _Draw, baseline: str, budget_s: float) -> Timing | None:
        """Samples of all that passed; where one fails under way, the others start again without it."""
        moving = Moving.of(timed.standard)
        while competing := [name for name in self.workers if name not in self.failed]:
            self.progress("timing")
            self.samplers = {
                name: Sampler(
                    self.workers[name], moving.coarsened(self._eps(name)), self.case, timed.number, self.origin.device
                )
                for name in competing
            }
            estimates = {name: self.prepared[name].second_s for name in competing}
            pivot = baseline if baseline in competing else competing[0]
            try:
                rounds = time_in_rounds(self._hands(), pivot, budget_s, self.case.seed, estimates)
            except ProviderFailure as failure:
                culprit = next(name for name in competing if self.samplers[name].failed)
                self._fail(culprit, failure.status, failure.reason)
                continue
            for name, sampler in self.samplers.items():
                self._check_clock(name, sampler, rounds)
            return rounds
        return None

    def _check_clock(self, name: str, sampler: Sampler, rounds: Timing) -> None:
        flaw = self._attempt(name, sampler.clock_flaw, float(np.median(rounds.samples[name])), rounds.loops[name])
        if flaw:
            self._fail(name, "wrong", flaw)

    def _hands(self) -> Hands:
        def place() -> None:
            for sampler in self.samplers.values():
                sampler.place()

        if self.origin.device != "cpu":
            return Hands(self.samplers, place)
        foreign = ForeignLoad(worker.pid for worker in self.workers.values() if worker.pid is not None)
        return Hands(self.samplers, place, foreign.cores)

    def _ask(self, name: str, method: str, *arguments: object) -> Any:
        return self._attempt(name, self.workers[name].request, method, *arguments)

    def _attempt(self, name: str, call: Callable[..., Any], *arguments: object) -> Any:
        """What the call returns; None where the provider failed in it, which is noted."""
        try:
            return call(*arguments)
        except ProviderFailure as failure:
            self._fail(name, failure.status, failure.reason)
            return None

    def _fail(self, name: str, status: Status, reason: str) -> None:
        self.failed.setdefault(name, self.origin.record(name, status, reason, correctness=self.correctness.get(name)))

    def _eps(self, name: str) -> float:
        if self.origin.device == "cpu":
            return 0.0
        return gate.PRECISION_EPS.get(name.partition("@")[0].removeprefix("fused-"), 0.0)


class _Draw(NamedTuple):
    """Parameters that nobody could foresee, and what is right for them."""

    number: int
    standard: gate.Standard

    @classmethod
    def of(cls, standard: gate.Standard, inputs: Inputs, case: Case) -> _Draw:
        number = cls.new_number()
        return cls(number, standard.moved_to(inputs._replace(**redraw_parameters(case, number))))

    @staticmethod
    def new_number() -> int:
        return secrets.randbelow(1 << 60)


def _replayed(fresh_s: float, known_s: float) -> bool:
    """Whether a step is so much quicker where it has seen the parameters that it cannot have done the work again."""
    return fresh_s > REPLAY_FACTOR * known_s + REPLAY_SLACK_S
