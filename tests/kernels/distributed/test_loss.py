"""The public functions over processes with gloo, against the oracle."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch

import kernels
from kernels import Grads, encode_ratings
from kernels.distributed import mf_loss, mf_loss_and_grads, mf_sse
from mfbench.problems.inputs import Inputs
from reference import oracle_loss_and_grads
from tests.kernels.distributed.processes import Processes
from tests.kernels.distributed.simulation import assert_equal, join
from tests.problems import assert_right, draw_inputs

BOUNDS = {1: (0, 41), 2: (0, 30, 41), 3: (0, 30, 30, 41), 4: (0, 1, 30, 41, 41)}
KINDS = ("mask", "NaN", "weights", "sparse", "encoded", "encoded sparse")


def drawn(kind: str, dtype: torch.dtype) -> Inputs:
    """Return inputs of one kind of ratings: a matrix, or for sparse kinds `torch.sparse_csr`."""
    mask_dtype = {"NaN": None, "weights": torch.float32}.get(kind, torch.bool)
    inputs = draw_inputs(41, 29, 7, dtype, mask_dtype=mask_dtype, seed=3)
    if "sparse" not in kind:
        return inputs
    entries = torch.where(inputs.mask, inputs.ratings, torch.zeros(())).to_sparse_csr()
    return inputs._replace(ratings=entries, mask=None)


def own_part(inputs: Inputs, process: int, size: int, kind: str = "") -> Inputs:
    """Return the arguments that a process passes."""
    start, stop = BOUNDS[size][process : process + 2]
    part = inputs.of_users(slice(start, stop))
    if not kind.startswith("encoded"):
        return part
    layout = "sparse" if part.sparse else "dense"
    return part._replace(ratings=encode_ratings(part.ratings, part.mask, layout=layout), mask=None)


def every_function(group: Any, process: int, kind: str, dtype: torch.dtype, options: dict[str, Any]) -> Any:
    """Evaluate a problem in every way: step, derivatives of a differentiable loss, loss alone, squared errors."""
    part = own_part(drawn(kind, dtype), process, group.size(), kind)
    loss, grads = mf_loss_and_grads(*part, group=group, **options)
    leaves = [parameter.clone().requires_grad_() for parameter in part[:5]]
    differentiable = mf_loss(*leaves, *part[5:], group=group, **options)
    (3 * differentiable).backward()
    alone = mf_loss(*part, group=group, **options)
    sse = mf_sse(*part[:7], group=group, **options)
    return loss, tuple(grads), differentiable.detach(), [leaf.grad for leaf in leaves], alone, sse


def check(inputs: Inputs, results: list[Any]) -> None:
    """Check the results of all processes."""
    for result in results:
        if isinstance(result, Exception):
            raise result
    losses, grads, differentiable, backward, alone, sse = zip(*results, strict=True)
    loss, whole = join(losses, *zip(*grads, strict=True))
    assert_right(inputs, (loss, Grads(*whole)))
    _, scaled = join(differentiable, *zip(*backward, strict=True))
    for gradient, three_times in zip(whole, scaled, strict=True):
        torch.testing.assert_close(three_times, 3 * gradient)  # a library may round otherwise in other memory
    exact, _ = oracle_loss_and_grads(*inputs[:7], 0.0)
    for process in range(len(results)):
        torch.testing.assert_close(differentiable[process], loss, rtol=1e-7, atol=0)
        torch.testing.assert_close(alone[process], loss, rtol=1e-7, atol=0)
        torch.testing.assert_close(float(sse[process]), float(exact), rtol=1e-5, atol=0)


@pytest.mark.processes
@pytest.mark.parametrize("size", BOUNDS)
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
        kernels.mf_loss_and_grads(*inputs.of_users(slice(*bounds))._replace(reg=0.0))[1]
        for bounds in pairwise(BOUNDS[4])
    ]
    for place in (1, 3, 4):
        total, *others = (grads[place] for grads in local)
        for other in others:
            total = total + other
        if place != 4:
            total = total.add(inputs[place], alpha=2 * inputs.reg)
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
