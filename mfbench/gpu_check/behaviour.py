"""How the fused step behaves on a GPU beside being right: bitwise repeatable, in a CUDA graph, on another stream."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from mfbench.correctness.gate import Standard
from mfbench.gpu_check.task import Context, PlainCase, Result, Task, as_case, product_eps
from mfbench.problems.inputs import Inputs, draw, on_device, redraw_parameters
from mfbench.providers.outputs import tensors
from mfbench.providers.registry import Outputs, Provider, Step
from mfbench.testing import verify

REPEATS = 5
RANKS = (30, 256)
SUITES = {"determinism": "gpu-check-determinism", "graph and stream": "gpu-check-graph"}
DETERMINISM, GRAPH = SUITES


def determinism(context: Context) -> Iterator[Task]:
    """Yield a task for each precision and form of the kernel."""
    for rank in RANKS:
        for precision in context.shipped(rank):
            name = f"{precision} rank {rank}"
            yield Task(DETERMINISM, name, functools.partial(_check_repeats, context, name, precision, rank))


def graph_and_stream(context: Context) -> Iterator[Task]:
    """Yield tasks that write new parameters in place, and expect a replay and a side stream to see them."""
    for precision in context.shipped(RANKS[0]):
        for mode, deterministic in (("", False), (" deterministic", True)):
            options = {"precision": precision, "deterministic": deterministic}
            name = f"replay of {precision}{mode}"
            yield Task(GRAPH, name, functools.partial(_check_new_parameters, context, name, _replayed, options))
    for precision in context.shipped(RANKS[0]):
        name = f"side stream, {precision}"
        options = {"precision": precision}
        yield Task(GRAPH, name, functools.partial(_check_new_parameters, context, name, _on_side_stream, options))


def _check_repeats(context: Context, name: str, precision: str, rank: int) -> Result:
    """Evaluate several times, between allocations that move the workspace, and compare bit by bit."""
    inputs = on_device(_drawn(context, rank), context.machine.device)
    step = context.fused(precision=precision, deterministic=True)(inputs)
    first = [output.clone() for output in tensors(step())]
    kept: list[Tensor] = []
    for turn in range(1, REPEATS):
        kept.append(torch.empty(1000 * turn, device=context.machine.device))
        for output, again in zip(first, tensors(step()), strict=True):
            if not torch.equal(output, again):
                return Result(name, f"evaluation {turn + 1} differs from the first in {_differing(output, again)}")
    return Result(name, note=f"{REPEATS} times the same bits")


def _differing(first: Tensor, again: Tensor) -> str:
    return (
        f"{int((first != again).count_nonzero())} of {first.numel()} entries of an output of shape {tuple(first.shape)}"
    )


Evaluate = Callable[[Context, Step, Callable[[], None]], Outputs]


def _replayed(context: Context, step: Step, write: Callable[[], None]) -> Outputs:
    replay = context.machine.capture(step)
    replay()
    write()
    return replay()


def _on_side_stream(context: Context, step: Step, write: Callable[[], None]) -> Outputs:
    step()  # compiled
    context.machine.synchronize()
    enqueued = context.machine.behind_a_delay(write, step)
    if enqueued.waited:
        raise RuntimeError("the host waited for the device during the step")
    return enqueued.outputs


def _check_new_parameters(context: Context, name: str, evaluate: Evaluate, options: dict[str, Any]) -> Result:
    machine = context.machine
    inputs = on_device(_drawn(context, RANKS[0]), machine.device)
    fresh = _new_parameters(context)
    own: dict[str, Any] = {parameter: getattr(inputs, parameter).clone() for parameter in fresh}
    inputs = inputs._replace(**own)
    on_machine = {parameter: value.to(machine.device) for parameter, value in fresh.items()}

    def write() -> None:
        for parameter, value in on_machine.items():
            getattr(inputs, parameter).copy_(value)

    # Evaluated before the judge looks at the inputs, which have the new parameters by then.
    outputs = evaluate(context, context.fused(**options)(inputs), write)
    machine.synchronize()
    standard = _standard(context).coarsened(product_eps(options["precision"]))
    checks, wrong = verify.check(Provider(name, lambda _: lambda: outputs), inputs, standard)
    return context.result(name, checks, wrong, context.case(SUITES[GRAPH], inputs))


@functools.lru_cache(maxsize=1)
def _drawn(context: Context, rank: int) -> Inputs:
    return draw(as_case(PlainCase(SUITES[DETERMINISM], *context.machine.sizes.build, rank, seed=context.seed)))


def _new_parameters(context: Context) -> dict[str, Any]:
    case = PlainCase(SUITES[GRAPH], *context.machine.sizes.build, RANKS[0], seed=context.seed)
    return redraw_parameters(as_case(case), context.seed + 1)


@functools.lru_cache(maxsize=1)
def _standard(context: Context) -> Standard:
    return context.standard(_drawn(context, RANKS[0])._replace(**_new_parameters(context)))
