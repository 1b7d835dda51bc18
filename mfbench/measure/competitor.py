"""One provider in a case: gate it, sample it, gate it again, and keep what was found."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from mfbench.correctness.audit.auditor import Auditor, new_draw
from mfbench.correctness.audit.expected import ExpectedOutputs
from mfbench.correctness.audit.probe import Challenge
from mfbench.correctness.gate import PRECISION_EPS, OutputCheck, Standard, findings
from mfbench.measure.devices.base import Reading
from mfbench.measure.devices.cpu import LONGEST_WARM_UP_S
from mfbench.measure.rounds import ProviderTiming
from mfbench.measure.worker.main import Evaluated, Prepared
from mfbench.measure.worker.process import WorkerProcess
from mfbench.problems.cases import Case
from mfbench.problems.inputs import Inputs, redraw_parameters
from mfbench.problems.shared import Location
from mfbench.results.codes import Code, ProviderFailure

GPU_OVERHEAD_S = 1.0  # longest untimed work around a sample on a GPU: clearing caches, blocking the stream


class Draw(NamedTuple):
    """Parameters that no provider could foresee, and the expected outputs on them."""

    number: int
    standard: Standard

    @classmethod
    def of(cls, standard: Standard, inputs: Inputs, case: Case) -> Draw:
        """Draw parameters for a case whose other inputs and bounds are given."""
        number = new_draw()
        return cls(number, standard.at(inputs._replace(**redraw_parameters(case, number))))


class Competitor:
    """One provider in a case. Methods that use its worker raise `ProviderFailure`, and keep the first in `failure`."""

    def __init__(self, name: str, worker: WorkerProcess, case: Case, device: str) -> None:
        self.name, self.case, self.worker = name, case, worker
        self.failure: ProviderFailure | None = None
        self.checks: dict[str, OutputCheck] = {}  # of the last evaluation that the gate saw, by output
        self.eager = ""  # why code under torch.compile ran in eager mode by then; empty if it did not
        self._device = device
        self._product_eps = _product_eps(name, device)
        self._prepared: Prepared | None = None
        self._timed_on: Draw | None = None
        self._auditor: Auditor | None = None

    @property
    def ran_with(self) -> dict[str, Any]:
        """Return the settings of the provider's own process, for its record; `gate_again` comes first."""
        return self.prepared.settings | ({"eager": self.eager} if self.eager else {})

    @property
    def prepared(self) -> Prepared:
        """Return the first evaluations; `gate` comes first."""
        assert self._prepared is not None
        return self._prepared

    def gate(self, standard: Standard, location: Location) -> None:
        """Prepare the provider on the case's inputs, and check its outputs."""
        with self._keeping_failure():
            self._prepared = self._request("prepare", location)
            self._check(standard, self.prepared.evaluated)

    def begin_timing(self, draw: Draw, expected: ExpectedOutputs) -> None:
        """Set the parameters that the provider is timed on, and what is expected of it meanwhile."""
        overhead_s = 0.0 if self._device == "cpu" else GPU_OVERHEAD_S
        self._timed_on = draw
        self._auditor = Auditor(expected.coarsened(self._product_eps), draw.number, LONGEST_WARM_UP_S, overhead_s)

    def place(self) -> None:
        """Move the provider's data to new memory."""
        with self._keeping_failure():
            self._request("place", self.case, self._draw.number)
            self._request("rest")

    def sample(self, loops: int, core: int | None = None) -> Reading:
        """Take an audited sample that starts on that core of the host, and wait until the worker is at rest."""
        with self._keeping_failure():
            challenge = self._audit.challenge(loops)
            reading: Reading
            reading, observations = self._request("sample", loops, core, challenge)
            self._audit.check_sample(self, challenge, observations)
            self._request("rest")
        return reading

    def samples_in_a_row(self, challenge: Challenge, count: int) -> Sequence[Reading]:
        """Take samples with nothing between them."""
        readings: list[Reading] = self._request("samples_in_a_row", len(challenge.biases), count, challenge)
        return readings

    def project(self, bits: bytes) -> list[float]:
        """Return the projections of the last sample's outputs."""
        projections: list[float] = self._request("project", bits)
        return projections

    def time_draws(self, draws: Sequence[int]) -> list[float]:
        """Return the seconds of an evaluation on each of the parameter draws."""
        seconds: list[float] = self._request("time_draws", self.case, draws)
        return seconds

    def check_clock(self, timing: ProviderTiming) -> None:
        """Audit the worker's clock."""
        with self._keeping_failure():
            self._audit.check_clock(self, timing.median_s, timing.loops)

    def gate_again(self, unseen: Draw, timing: ProviderTiming) -> None:
        """Check outputs and speed on new parameters in the same tensors, where cached results are wrong or slow."""
        with self._keeping_failure():
            evaluated = self._request("evaluate_redrawn", self.case, unseen.number)
            self._check(unseen.standard, evaluated, "after timing, on new parameters: ")
            self._audit.check_replay(self, evaluated.seconds, timing.median_s, timing.loops)

    def release(self) -> None:
        """Free the worker's memory, if it is alive."""
        if self.worker.pid is not None:
            with self._keeping_failure():
                self._request("release")

    def _check(self, standard: Standard, evaluated: Evaluated, when: str = "") -> None:
        self.eager = evaluated.eager
        self.checks = standard.coarsened(self._product_eps).judge(evaluated.outputs)
        if found := findings(self.checks, evaluated.flaws):
            code = found[0].code
            if when and code is Code.OFF_BOUND:
                code = Code.STALE_RESULT
            raise ProviderFailure(code, when + "; ".join(finding.message for finding in found))

    def _request(self, method: str, *arguments: object) -> Any:
        return self.worker.request(method, *arguments)

    @contextlib.contextmanager
    def _keeping_failure(self) -> Iterator[None]:
        try:
            yield
        except ProviderFailure as failure:
            self.failure = self.failure or failure
            raise

    @property
    def _audit(self) -> Auditor:
        assert self._auditor is not None  # `begin_timing` comes first
        return self._auditor

    @property
    def _draw(self) -> Draw:
        assert self._timed_on is not None  # `begin_timing` comes first
        return self._timed_on


def _product_eps(provider: str, device: str) -> float:
    """Return the unit of rounding of a provider's products if it is coarser than float32's, else 0."""
    if device == "cpu":
        return 0.0
    return PRECISION_EPS.get(provider.partition("@")[0].removeprefix("fused-"), 0.0)
