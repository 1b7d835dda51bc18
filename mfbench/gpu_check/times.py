"""Times of the fused step in each precision against autograd and `torch.compile`, each behind the gate."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from mfbench.correctness.gate import Standard
from mfbench.gpu_check.machine import WALL_CLOCK, Size
from mfbench.gpu_check.task import Context, PlainCase, Result, Task, as_case, product_eps
from mfbench.measure import recording
from mfbench.measure.planning import Goal
from mfbench.measure.recording import Fields
from mfbench.measure.rounds import time_in_rounds
from mfbench.problems.inputs import Inputs, draw, on_device, redraw_parameters
from mfbench.providers.exceptions import reason
from mfbench.providers.outputs import tensors
from mfbench.providers.registry import BUILTIN, Prepare, Provider, Step
from mfbench.results.codes import Code
from mfbench.testing import verify

PART, REST = "times", "the rest"
SUITE = "gpu-check"
RANKS = (30, 64)
BASELINE = "autograd"
OTHERS = (BASELINE, "compile", "closed-form")
MARGIN = 0.02  # of the verdicts
BUDGET_S = 4.0  # of timing a case
LARGE_CASE_S = 60.0  # most that a case of 16384² was planned to take, with its oracle and compilations


def times(context: Context) -> Iterator[Task]:
    """Yield the cases that most people ask about: the notebook's size, then large ones.

    At the notebook's size the launches cost more than the work, so they are timed too, and captured in graphs.
    """
    sizes = context.machine.sizes
    yield _task(context, PART, sizes.notebook, RANKS[0], as_used=True, data="seed", ratings_dtype="float64",
                mask="int32")  # fmt: skip
    for size in sizes.timed:
        for rank in RANKS:
            yield _task(context, PART, size, rank)


def more_times(context: Context) -> Iterator[Task]:
    """Yield cases of less interest: other sizes and a wide rank."""
    for size in context.machine.sizes.rest:
        yield _task(context, REST, size, RANKS[0])
    yield _task(context, REST, context.machine.sizes.timed[0], 128)


def _task(context: Context, part: str, size: Size, rank: int, as_used: bool = False, **fields: Any) -> Task:
    case = PlainCase(SUITE, *size, rank, seed=context.seed, **fields)
    run = functools.partial(_time_case, context, case, providers(context, rank, as_used), as_used)
    return Task(part, case.label, run, required=False, seconds=LARGE_CASE_S)


def providers(context: Context, rank: int, with_graphs: bool) -> dict[str, Prepare]:
    """Return what is timed, by name; the same steps captured in CUDA graphs too if asked for."""
    found = {name: BUILTIN[name].prepare for name in OTHERS}
    fused = {f"fused-{precision}": context.fused(precision=precision) for precision in context.shipped(rank)}
    found |= fused | {"fused-deterministic": context.fused(deterministic=True)}
    if with_graphs:
        found |= {f"{name}-graph": _captured(context, found[name]) for name in (*OTHERS[:2], *fused)}
    return found


def _captured(context: Context, prepare: Prepare) -> Prepare:
    return lambda inputs: context.machine.capture(prepare(inputs))


def _time_case(context: Context, case: PlainCase, prepared: Mapping[str, Prepare], wall_clock: bool) -> Result:
    """Check every provider, time those that are right in rounds, and check them again on new parameters."""
    machine, drawn = context.machine, draw(as_case(case))
    standard = context.standard(drawn)
    inputs = _with_own_parameters(on_device(drawn, machine.device))
    contest = _Contest(context, case, inputs)
    for name, prepare in prepared.items():
        contest.admit(name, prepare, standard)
    timed = contest.time(wall_clock)
    fresh = redraw_parameters(as_case(case), context.seed + 1)
    for name, values in fresh.items():
        getattr(inputs, name).detach().copy_(values)
    contest.check_again(standard.at(drawn._replace(**fresh), context.oracle(drawn)))
    result = Result(case.label, contest.wrong(), contest.remarks(), contest.records(timed))
    contest.steps.clear()
    machine.release()
    return result


def _with_own_parameters(inputs: Inputs) -> Inputs:
    """Return inputs whose parameters can be written to."""
    return inputs._replace(**{name: getattr(inputs, name).clone() for name in Inputs._fields[:5]})


class _Contest:
    """The providers of one case: the steps of those that are right, and the records of those that are not."""

    def __init__(self, context: Context, case: PlainCase, inputs: Inputs) -> None:
        self.context, self.case, self.inputs = context, case, inputs
        self.origin = context.origin(case)
        self.steps: dict[str, Step] = {}
        self.measured: dict[str, Fields] = {}  # fields of the record, from the gate
        self.seconds: dict[str, float] = {}  # of the second evaluation
        self.failures: dict[str, Fields] = {}

    def admit(self, name: str, prepare: Prepare, standard: Standard) -> None:
        """Prepare a provider, evaluate it twice, and keep its step if it is right."""
        try:
            start = time.perf_counter()
            step = prepare(self.inputs)
            step()
            self.context.machine.synchronize()
            first_s = time.perf_counter() - start
            start = time.perf_counter()
            outputs, peak = self.context.machine.peak_of(step)
            self.seconds[name] = time.perf_counter() - start
        except Exception as error:  # a compiler's, the device's, or out of memory
            code = Code.OOM if isinstance(error, torch.OutOfMemoryError) else Code.EXCEPTION
            self.failures[name] = self.origin.failure_fields(name, code, reason(error))
            self.context.machine.synchronize()  # raises if the device has failed
            return
        own_bytes = sum(output.nbytes for output in tensors(outputs))
        self.measured[name] = {
            "compile_s": max(0.0, first_s - self.seconds[name]),
            "peak_bytes": None if peak is None else max(0, peak - own_bytes),
        }
        self.steps[name] = step
        self._check(name, standard)

    def time(self, wall_clock: bool) -> dict[str, Fields]:
        """Time all steps against each other; return what records hold of it, by provider."""
        if not self.steps:
            return {}
        machine, names = self.context.machine, list(self.steps)
        baseline = BASELINE if BASELINE in names else None
        estimates = {name: self.seconds[name] for name in names}
        hooks = machine.hooks(self.steps, wall_clock)
        timing = time_in_rounds(hooks, baseline or names[0], Goal(BUDGET_S), self.case.seed, estimates)
        ceilings, observed = machine.ceilings(as_case(self.case)), self.inputs.observed
        found = {}
        for name in names:
            fields = recording.timed(
                self.origin, name, timing, baseline, MARGIN, max(1, len(names) - 1), ceilings, observed
            )
            clock = WALL_CLOCK if wall_clock else fields["timing"]["method"].removesuffix(recording.METHOD)
            fields["timing"]["method"] = clock + machine.method
            found[name] = fields
        return found

    def check_again(self, standard: Standard) -> None:
        """Check the steps that were timed on the parameters that the inputs hold by now."""
        for name in list(self.steps):
            self._check(name, standard, "after timing, on new parameters: ")

    def _check(self, name: str, standard: Standard, when: str = "") -> None:
        step = self.steps[name]
        eps = product_eps(name.removeprefix("fused-").removesuffix("-graph"))
        checks, wrong = verify.check(Provider(name, lambda _: step), self.inputs, standard.coarsened(eps))
        self.measured[name]["correctness"] = found = recording.correctness(checks)
        if wrong is None:
            return
        del self.steps[name]
        code = next((check.code for check in checks.values() if check.code), Code.EXCEPTION)
        self.failures[name] = self.origin.failure_fields(name, code, when + wrong, found or None)

    def records(self, timed: Mapping[str, Fields]) -> tuple[Fields, ...]:
        """Return the records of all: of steps that stayed right with their times, of the others with the reason."""
        right = (self.origin.fields(name, status="ok", **self.measured[name], **timed[name]) for name in self.steps)
        return (*right, *self.failures.values())

    def wrong(self) -> str:
        """Return what is wrong: a fused step that failed, or a wrong result of anyone's."""
        return "; ".join(
            f"{name}: {record['reason']}"
            for name, record in self.failures.items()
            if name.startswith("fused") or record["status"] == "wrong"
        )

    def remarks(self) -> str:
        """Return why others were not timed."""
        return "; ".join(
            f"{name} not timed: {record['reason']}"
            for name, record in self.failures.items()
            if not name.startswith("fused") and record["status"] != "wrong"
        )
