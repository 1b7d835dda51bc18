"""One thing that is checked, its result, and the tools that all checks share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from kernels import mf_loss_and_grads
from mfbench.correctness import gate
from mfbench.correctness.gate import OutputCheck
from mfbench.gpu_check.machine import Machine
from mfbench.measure.recording import Fields, Origin, correctness
from mfbench.problems.inputs import Inputs, on_device
from mfbench.providers.outputs import LETTERS
from mfbench.providers.registry import Prepare, Provider
from mfbench.results.codes import Code
from mfbench.testing import verify
from reference import oracle_loss_and_grads

if TYPE_CHECKING:
    from mfbench.problems.cases import Case

LARGE = 1 << 23  # ratings beyond which NumPy's oracle takes too long, and the device's float64 stands in for it


class Result(NamedTuple):
    """What a task found."""

    name: str
    wrong: str = ""  # what is wrong; empty: nothing
    note: str = ""  # a figure, or why something could not be looked at
    records: tuple[Fields, ...] = ()


class Task(NamedTuple):
    """One thing to check."""

    part: str  # of the summary
    name: str
    run: Callable[[], Result]
    required: bool = True  # without it the GPU is not known to be right
    seconds: float = 10.0  # it is begun only if this much time is left


class PlainCase(NamedTuple):
    """The fields of `mfbench.problems.cases.Case`, which needs Pydantic."""

    suite: str
    m: int
    n: int
    rank: int
    density: float = 0.8
    layout: str = "dense"
    ratings_dtype: str = "float32"
    mask: str = "uint8"
    data: str = "synthetic"
    workload: str = "step"
    seed: int = 1

    @property
    def sparse(self) -> bool:
        """No ratings here are sparse."""
        return False

    @property
    def label(self) -> str:
        """Size and rank in words."""
        return f"{self.m}×{self.n} rank {self.rank}"


class Context(NamedTuple):
    """What all tasks of a run share."""

    machine: Machine
    run_id: str
    seed: int

    def origin(self, case: PlainCase) -> Origin:
        """Return the origin of a case's records."""
        return Origin(self.run_id, as_case(case), self.machine.device)

    def fused(self, **options: Any) -> Prepare:
        """Return the fused step with these options as a provider's `prepare`."""

        def prepare(inputs: Inputs) -> Callable[[], Any]:
            return lambda: mf_loss_and_grads(*inputs, backend=self.machine.backend, **options)

        return prepare

    def shipped(self, rank: int) -> list[str]:
        """Return the precisions that the device has a build for, in both modes."""
        machine = self.machine
        return [
            precision
            for precision in machine.precisions
            if not (machine.not_shipped(rank, precision) or machine.not_shipped(rank, precision, deterministic=True))
        ]

    def standard(self, inputs: Inputs) -> gate.Standard:
        """Return exact outputs and bounds of inputs on the CPU."""
        return gate.standard(inputs, self.oracle(inputs))

    def oracle(self, inputs: Inputs) -> gate.Oracle:
        """Return NumPy's oracle, or for a large problem the float64 step in plain PyTorch on the device.

        The latter is checked against the former in a separate task.
        """
        return self.float64_step if inputs.ratings.numel() > LARGE else oracle_loss_and_grads

    def float64_step(self, *arguments: Any) -> tuple[Any, list[Any]]:
        """Evaluate in float64 on the device, in plain PyTorch; return loss and gradients on the CPU."""
        inputs = on_device(Inputs(*arguments), self.machine.device)
        parameters: dict[str, Any] = {name: getattr(inputs, name).double() for name in Inputs._fields[:5]}
        loss, grads = mf_loss_and_grads(*inputs._replace(**parameters), backend="torch")
        return float(loss), [grad.cpu().numpy() for grad in grads]

    def judged(self, name: str, prepare: Prepare, standard: gate.Standard, suite: str, eps: float = 0.0) -> Result:
        """Evaluate a step on the standard's inputs, moved to the device, and return its result with a record."""
        inputs = on_device(standard.inputs, self.machine.device)
        checks, wrong = verify.check(Provider(name, prepare), inputs, standard.coarsened(eps))
        return self.result(name, checks, wrong, self.case(suite, standard.inputs))

    def case(self, suite: str, inputs: Inputs) -> PlainCase:
        """Return the case that stands for inputs in records."""
        (m, n), rank = inputs.ratings.shape, inputs.user_factors.shape[1]
        ratings, mask = (None if t is None else str(t.dtype).removeprefix("torch.") for t in inputs[5:7])
        density = round(inputs.observed / max(1, m * n), 4)
        return PlainCase(suite, m, n, rank, density, "dense", str(ratings), mask or "none", seed=self.seed)

    def result(self, name: str, checks: Mapping[str, OutputCheck], wrong: str | None, case: PlainCase) -> Result:
        """Return the result of outputs that were checked, with a record."""
        origin, found = self.origin(case), correctness(checks) or None
        if wrong is None:
            return Result(name, note=closeness(checks), records=(origin.fields(name, status="ok", correctness=found),))
        code = next(
            (check.code for check in checks.values() if check.code), Code.OFF_BOUND if checks else Code.EXCEPTION
        )
        return Result(name, wrong, records=(origin.failure_fields(name, code, wrong, found),))


def as_case(case: PlainCase) -> Case:
    """Return the case as functions that only read its fields take it."""
    return cast("Case", case)


def product_eps(precision: str) -> float:
    """Return the unit of rounding of products where it is coarser than the parameters', else 0."""
    return gate.PRECISION_EPS.get(precision, 0.0)


def closeness(checks: Mapping[str, OutputCheck]) -> str:
    """Return the largest error as a fraction of its bound, and its output."""
    fraction, output = max((check.error / check.bound, name) for name, check in checks.items())
    return f"{fraction:.2f} {LETTERS[output]}"
