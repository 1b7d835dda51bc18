"""Faults planted in compiled code are detected.

Whether a missing barrier does harm is judged without the race check: warps that run one after another, in two orders,
must then give the same result. Every plant that the check lets pass has to be harmless in that sense.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytest
import torch

from kernels.gpu import config
from kernels.gpu.version import is_old

from . import OutOfBounds, PTXError
from .draws import draw
from .plants import (
    ATOM,
    BARRIER,
    COMMIT,
    PROXY_FENCE,
    STEP,
    WAIT,
    WARP_BARRIER,
    WGMMA_COMMIT,
    WGMMA_FENCE,
    WGMMA_WAIT,
    removed,
    shifted_descriptors,
    short_waits,
    swapped_operands,
    unguarded,
    unmasked_copies,
)
from .steps import execute_launch, the_pass
from .triton_kernels import Build, add, masked_sums, matmul

pytestmark = pytest.mark.ptx


class Outcome(NamedTuple):
    races: list
    right: bool


Execute = Callable[..., Outcome]  # of a changed text (None: as compiled) and a schedule, which orders n warps
SERIAL: tuple[Callable[[int], Sequence[int]], ...] = (range, lambda n: range(n - 1, -1, -1))


def product(target: int, num_stages: int, precision: str = "tf32") -> tuple[str, Execute]:
    """A pipelined matrix product of one block."""
    generator = torch.Generator().manual_seed(num_stages)
    a, b = torch.randn(29, 80, generator=generator), torch.randn(80, 32, generator=generator)
    c = torch.empty(29, 32)
    args = [a, b, c, 29, 32, 80, *a.stride(), *b.stride()]
    constants = {"BM": 32, "BN": 32, "BK": 16, "PRECISION": precision}
    build = Build(matmul, args, constants, target, num_stages=num_stages)

    def execute(ptx: str | None = None, schedule=None) -> Outcome:
        c.fill_(float("nan"))
        report = build.execute((1,), args, ptx, schedule=schedule and schedule(build.num_warps))
        return Outcome(report.races, bool((c - a @ b).abs().max() < 0.1))

    return build.ptx, execute


def sums(target: int) -> tuple[str, Execute]:
    """Reductions across lanes and warps, and a branch on one of them."""
    x = torch.randn(32, 90, generator=torch.Generator().manual_seed(0))
    x[:, 32:64] = float("nan")
    kept = x.double().nan_to_num(nan=0)
    outputs = torch.empty(32), torch.empty(90), torch.empty(1, dtype=torch.float64), torch.empty(1, dtype=torch.int32)
    args = [x, *outputs, 32, 90, 90]
    build = Build(masked_sums, args, {"BM": 32, "BN": 32}, target)

    def execute(ptx: str | None = None, schedule=None) -> Outcome:
        outputs[0].fill_(float("nan"))
        for output in outputs[1:]:
            output.zero_()
        report = build.execute((1,), args, ptx, schedule=schedule and schedule(build.num_warps))
        expected = kept.sum(1), kept.sum(0), kept.sum()[None], torch.tensor([2])
        pairs = zip(outputs, expected, strict=True)
        return Outcome(report.races, all(torch.allclose(o.double(), e.double(), atol=1e-3) for o, e in pairs))

    return build.ptx, execute


@pytest.fixture(autouse=True)
def one_program(monkeypatch, few_programs):
    """The fused pass in one block, whose loop runs over all tiles."""
    monkeypatch.setattr(config, "DETERMINISTIC_PROGRAMS", 1)


def fused(
    precision: str, items: int = 40, target: str = "sm_80", encoding: str = "float32 with gaps between rows"
) -> tuple[str, Execute]:
    """The fused pass on some tiles of a matrix, by default a gapped one."""
    problem = draw(7, encoding, 30, 60, items, 0.5)
    plan = problem.plan(target, precision, deterministic=True)
    buffers = {id(arg): arg for launch in plan.launches for arg in launch.args if isinstance(arg, torch.Tensor)}
    initial = [(buffer, buffer.clone()) for buffer in buffers.values()]

    step = the_pass(plan)

    def execute(ptx: str | None = None, schedule=None, late: bool = False) -> Outcome:
        for buffer, values in initial:
            buffer.copy_(values)
        races = []
        for launch in plan.launches:
            if launch is step:
                races = execute_launch(launch, ptx, schedule=schedule and schedule(launch.num_warps), late=late)
            else:
                execute_launch(launch)
        return Outcome(races, max(problem.errors(plan, precision).values()) <= 1)

    return step.ptx, execute


def hopper(precision: str) -> tuple[str, Execute]:
    """The fused pass on two tiles, with vector loads and wgmma."""
    return fused(precision, 96, "sm_90", "float32, uint8 mask")


KERNELS = {
    "product sm_80": lambda: product(80, 1),
    "product sm_80, 3 stages": lambda: product(80, 3),
    "product sm_80, bf16x3": lambda: product(80, 2, "bf16x3"),
    "product sm_120, 3 stages": lambda: product(120, 3),
    "sums sm_80": lambda: sums(80),
    "sums sm_120": lambda: sums(120),
    "fused sm_80, tf32": lambda: fused("tf32"),
    "fused sm_80, bf16x3": lambda: fused("bf16x3"),
    "fused sm_90, tf32": lambda: hopper("tf32"),
}


@pytest.mark.parametrize("kernel", KERNELS)
def test_removed_barriers_waits_and_commits_are_seen(kernel):
    ptx, execute = KERNELS[kernel]()
    assert execute() == Outcome([], True)
    assert all(execute(schedule=schedule) == Outcome([], True) for schedule in SERIAL)
    seen, harmless = [], []
    for statement in (BARRIER, WARP_BARRIER, WAIT, COMMIT):
        for line, changed in removed(ptx, statement):
            outcome = execute(changed)
            (seen if outcome.races or not outcome.right else harmless).append((line, changed))
    for line, changed in harmless:
        assert all(execute(changed, schedule).right for schedule in SERIAL), f"line {line} is needed"
    assert len(seen) > len(harmless)
    # And the check does not cry wolf: of what it reports, a serial order of warps breaks most.
    broken = [any(not execute(changed, schedule).right for schedule in SERIAL) for _, changed in seen[:2]]
    assert sum(broken) >= len(broken) / 2


def caught(execute: Execute, ptx: str, **options) -> bool:
    try:
        outcome = execute(ptx, **options)
    except PTXError:
        return True
    return bool(outcome.races) or not outcome.right


# Precision -> how many of the fences, commits and waits of wgmma, of the waits for one group less and of the proxy
# fences are needed. Of the products that add up one sum only the last is waited for, and those with both operands in
# shared memory need no fence between them; writes that one proxy fence has covered need no other.
NEEDED = {"tf32": (3, 3, 3, 3, 2), "bf16x3": (7, 3, 3, 3, 1), "tf32x3": (4, 2, 2, 2, 1)}
if is_old():  # without copies in flight, and other fences
    NEEDED |= {"bf16x3": (4, 3, 3, 3, 1), "tf32x3": (3, 2, 2, 2, 1)}


@pytest.mark.parametrize("precision", NEEDED)
def test_removed_fences_commits_and_waits_of_wgmma_are_seen(precision):
    ptx, execute = hopper(precision)
    assert execute() == execute(late=True) == execute(schedule=SERIAL[1]) == Outcome([], True)
    plants = [list(removed(ptx, statement)) for statement in (WGMMA_FENCE, WGMMA_COMMIT, WGMMA_WAIT)]
    plants += [list(short_waits(ptx)), list(removed(ptx, PROXY_FENCE))]
    seen = tuple(sum(caught(execute, changed, late=True) for _, changed in group) for group in plants)
    assert seen == NEEDED[precision]
    if precision == "tf32":  # one product for each sum: everything but the proxy fences is needed
        assert seen[:4] == tuple(len(group) for group in plants[:4])


@pytest.mark.parametrize("units", [ATOM, STEP], ids=["atom", "step"])
@pytest.mark.parametrize("precision", ["tf32", "bf16x3"])
def test_shifted_descriptors_are_seen(precision, units):
    ptx, execute = hopper(precision)
    plants = list(shifted_descriptors(ptx, units))
    assert len(plants) >= 20
    for line, changed in plants[:: len(plants) // 6]:
        assert caught(execute, changed), f"line {line}"


def test_a_forced_predicate_is_out_of_bounds():
    x, y, out = torch.randn(200), torch.randn(200), torch.empty(200)
    args = [x, y, out, 200]
    build = Build(add, args, {"BLOCK": 256})
    plants = [*unguarded(build.ptx, "ld.global"), *unguarded(build.ptx, "st.global")]
    assert len(plants) == 6
    for line, changed in plants:
        with pytest.raises(OutOfBounds, match="thread 100:") as error:  # thread t has elements 2 t and 2 t + 1
            build.execute((1,), args, changed)
        assert error.value.line == line


def test_every_bounds_check_of_the_fused_pass_is_needed():
    """Ratings and mask are guarded, by predicates or by the size of a copy; forced, each reads where nothing is.

    Not so the copies of factor rows, which are padded to whole tiles: their guard says whether there is a next tile.
    """
    kernels = [fused("tf32", items) for items in (2, 17, 33, 65)]  # little in the first tile, and in the last
    ptx = kernels[0][0]
    assert {text for text, _ in kernels} == {ptx}
    plants = [*unguarded(ptx, "ld.global"), *unmasked_copies(ptx)]
    stray = {line: _stray_line(changed, kernels) for line, changed in plants}
    harmless = [line for line, at in stray.items() if at is None]
    assert all(at in (line, None) for line, at in stray.items())
    assert all("cp.async.cg" in ptx.split("\n")[line - 1] for line in harmless)
    assert len(stray) - len(harmless) >= 16


def _stray_line(changed: str, kernels: list[tuple[str, Execute]]) -> int | None:
    """The line whose access was out of bounds, None where there was none and the result is right."""
    try:
        outcomes = [execute(changed) for _, execute in kernels]
    except OutOfBounds as error:
        return error.line
    assert all(outcome.right for outcome in outcomes)
    return None


@pytest.mark.parametrize("kernel", [fused, hopper])
@pytest.mark.parametrize("precision", ["tf32", "bf16x3"])
def test_swapped_operands_of_a_matrix_instruction_are_seen(precision, kernel):
    ptx, execute = kernel(precision)
    plants = list(swapped_operands(ptx))
    assert len(plants) >= 16
    for line, changed in plants[:: len(plants) // 8]:
        assert not execute(changed).right, f"line {line}"
