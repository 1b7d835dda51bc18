"""The public functions over processes with gloo, against the oracle."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch

import kernels
from kernels.distributed import mf_loss, mf_loss_and_grads
from mfbench.problems.inputs import Inputs
from reference import oracle_loss_and_grads
from tests.kernels.distributed.evaluation import KINDS, ROWS, check, drawn, encoded, evaluated
from tests.kernels.distributed.processes import Processes
from tests.kernels.distributed.simulation import assert_equal


def own_part(inputs: Inputs, process: int, size: int, kind: str = "") -> Inputs:
    """Return the arguments that a process passes."""
    start, stop = ROWS[size][process : process + 2]
    return encoded(inputs.of_users(slice(start, stop)), kind)


def every_function(group: Any, process: int, kind: str, dtype: torch.dtype, options: dict[str, Any]) -> Any:
    return evaluated(own_part(drawn(kind, dtype), process, group.size(), kind), group, options)


@pytest.mark.processes
@pytest.mark.parametrize("size", ROWS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"deterministic": True}, {"backend": "torch"}], ids=str)
def test_every_function_over_processes(processes, size, dtype, kind, options):
    check(drawn(kind, dtype), processes.call(every_function, size, kind, dtype, options))


def test_every_function_over_two_processes():
    started = Processes(2, (2,))
    try:
        check(drawn("mask", torch.float32), started.call(every_function, 2, "mask", torch.float32, {}))
    finally:
        started.close()


def repeated(group: Any, process: int, deterministic: bool) -> Any:
    part = own_part(drawn("mask", torch.float32), process, group.size())
    return [tuple(mf_loss_and_grads(*part, deterministic=deterministic, group=group)[1]) for _ in range(5)]


@pytest.mark.processes
def test_deterministic_sums_are_those_of_the_processes_in_order(processes):
    results = processes.call(repeated, 4, True)
    inputs = drawn("mask", torch.float32)
    local = [
        kernels.mf_loss_and_grads(*inputs.of_users(slice(*bounds))._replace(reg=0.0))[1] for bounds in pairwise(ROWS[4])
    ]
    for place in (1, 3, 4):
        wide = torch.float64 if place == 4 else torch.float32  # in which the sum is carried
        total, *others = (grads[place].to(wide) for grads in local)
        for other in others:
            total = total + other
        total = total.float() if place == 4 else total.add(inputs[place], alpha=2 * inputs.reg)
        for runs in results:
            for grads in runs:
                assert_equal(grads[place], total)


def compiled(group: Any, process: int) -> Any:
    part = own_part(drawn("mask", torch.float64), process, group.size())
    leaves = [parameter.clone().requires_grad_() for parameter in part[:5]]

    @torch.compile(backend="eager")
    def scaled(*parameters: Any) -> Any:
        return 2 * mf_loss(*(parameter * 1 for parameter in parameters), *part[5:], group=group)

    loss = scaled(*leaves)
    loss.backward()
    _, grads = mf_loss_and_grads(*part, group=group)
    return max(float((leaf.grad - 2 * grad).abs().sum()) for leaf, grad in zip(leaves, grads, strict=True))


@pytest.mark.processes
def test_compiled_code_breaks_at_the_call_and_goes_on(processes):
    assert processes.call(compiled, 2) == [0.0, 0.0]


def in_groups_of_two(group: Any, process: int) -> Any:
    import torch.distributed as dist

    halves = [dist.new_group(pair) for pair in ((0, 1), (2, 3))]
    inputs = drawn("mask", torch.float64)
    part = inputs.of_users(slice(0, 30) if process % 2 else slice(30, 41))
    refused = None
    try:
        mf_loss(*part, group=halves[1 - process // 2])
    except ValueError as error:
        refused = str(error)
    return mf_loss(*part, group=halves[process // 2]), refused


@pytest.mark.processes
def test_groups_of_some_of_the_processes(processes):
    exact, _ = oracle_loss_and_grads(*drawn("mask", torch.float64))
    for loss, refused in processes.call(in_groups_of_two, 4):
        torch.testing.assert_close(float(loss), float(exact), rtol=1e-12, atol=0)
        assert refused == "group: expected a group that this process belongs to, got one of other processes"
