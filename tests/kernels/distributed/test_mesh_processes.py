"""Users x items on a device mesh of processes with gloo, against the oracle."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

import kernels
from kernels.distributed import mf_loss, mf_loss_and_grads, mf_sse
from reference import oracle_loss_and_grads
from tests.kernels.distributed.evaluation import ITEMS, KINDS, by_axes, check, drawn, evaluated, parts
from tests.kernels.distributed.processes import Processes
from tests.kernels.distributed.simulation import assert_equal, block_of
from tests.problems import assert_right, draw_inputs

SHAPES = [(2, 2), (1, 4), (4, 1)]


@functools.cache
def mesh_of(shape: tuple[int, int]) -> DeviceMesh:
    """Return a mesh of all processes, made once by each of them."""
    return init_device_mesh("cpu", shape)


def every_function(_, process: int, shape: tuple[int, int], kind: str, dtype: torch.dtype, options: Any) -> Any:
    return evaluated(parts(drawn(kind, dtype), shape, kind)[process], mesh_of(shape), options)


@pytest.mark.processes
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"deterministic": True}], ids=str)
def test_every_function_over_four_processes(processes, shape, dtype, kind, options):
    check(drawn(kind, dtype), processes.call(every_function, 4, shape, kind, dtype, options), shape)


@pytest.mark.processes
def test_every_function_over_six_processes():
    started = Processes(6, (6,))
    try:
        for kind in KINDS:
            check(drawn(kind, torch.float32), started.call(every_function, 6, (3, 2), kind, torch.float32, {}), (3, 2))
    finally:
        started.close()


def repeated(_, process: int, shape: tuple[int, int]) -> Any:
    part = parts(drawn("mask", torch.float32), shape)[process]
    return [tuple(mf_loss_and_grads(*part, deterministic=True, group=mesh_of(shape))[1]) for _ in range(5)]


@pytest.mark.processes
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_deterministic_sums_are_those_of_the_processes_in_order(processes, shape):
    rows, columns = shape
    inputs = drawn("mask", torch.float32)
    blocks = parts(inputs, shape)
    local = [kernels.mf_loss_and_grads(*block._replace(reg=0.0), deterministic=True)[1] for block in blocks]
    for process, runs in enumerate(processes.call(repeated, 4, shape)):
        row, column = divmod(process, columns)
        in_row, in_column = range(row * columns, (row + 1) * columns), range(column, rows * columns, columns)
        for place, others in enumerate((in_row, in_column, in_row, in_column)):
            total = functools.reduce(torch.add, (local[other][place] for other in others))
            total = total.add(blocks[process][place], alpha=2 * inputs.reg)
            for grads in runs:
                assert_equal(grads[place], total)
        for grads in runs:
            assert_equal(grads[4], sum(grads[4].double() for grads in local).float())


def differing(_, process: int) -> Any:
    part = parts(drawn("mask", torch.float32), (2, 2))[process]
    if process == 2:  # block (1, 0)
        part = block_of(part, slice(None), slice(0, 19))
    return mf_loss_and_grads(*part, group=DeviceMesh("cpu", torch.arange(4).reshape(2, 2)))


@pytest.mark.processes
def test_blocks_that_disagree_are_named_on_every_process(processes):
    for error in processes.call(differing, 4):
        with pytest.raises(
            ValueError,
            match=r"^item_factors: expected the same number of items on every process with block 0 of the items, "
            r"got 20 on process \(0, 0\) and 19 on process \(1, 0\)$",
        ):
            raise error


def two_problems(_, process: int) -> Any:
    """Evaluate a problem, and then one of which only the last column of blocks is smaller."""
    block = parts(drawn("mask", torch.float64), (2, 2))[process]
    smaller = block_of(block, slice(None), slice(0, 20 if process % 2 == 0 else 5))
    return [mf_loss(*inputs, group=mesh_of((2, 2))) for inputs in (block, smaller)]


@pytest.mark.processes
def test_blocks_of_other_sizes_in_a_later_step(processes):
    inputs = drawn("mask", torch.float64)
    exact = [oracle_loss_and_grads(*block_of(inputs, slice(None), slice(0, stop)))[0] for stop in (ITEMS, 25)]
    for losses in processes.call(two_problems, 4):
        torch.testing.assert_close([float(loss) for loss in losses], [float(e) for e in exact], rtol=1e-12, atol=0)


def half(_, process: int) -> Any:
    """Evaluate over a mesh of two of the processes, on all of them."""
    inputs = drawn("mask", torch.float64)
    mesh = DeviceMesh("cpu", [[0, 1]])
    part = parts(inputs, (1, 2))[process % 2]
    return mf_loss(*part, group=mesh)


@pytest.mark.processes
def test_a_mesh_of_some_of_the_processes(processes):
    exact, _ = oracle_loss_and_grads(*drawn("mask", torch.float64))
    *losses, first, second = processes.call(half, 4)
    for loss in losses:
        torch.testing.assert_close(float(loss), float(exact), rtol=1e-12, atol=0)
    for error in (first, second):
        with pytest.raises(ValueError, match=r"^group: expected a device mesh that this process belongs to"):
            raise error


def compiled(_, process: int) -> Any:
    part = parts(drawn("mask", torch.float64), (2, 2))[process]
    leaves = [parameter.clone().requires_grad_() for parameter in part[:5]]
    mesh = mesh_of((2, 2))

    @torch.compile(backend="eager")
    def scaled(*parameters: Any) -> Any:
        return 2 * mf_loss(*(parameter * 1 for parameter in parameters), *part[5:], group=mesh)

    scaled(*leaves).backward()
    _, grads = mf_loss_and_grads(*part, group=mesh)
    return max(float((leaf.grad - 2 * grad).abs().sum()) for leaf, grad in zip(leaves, grads, strict=True))


@pytest.mark.processes
def test_compiled_code_breaks_at_the_call_and_goes_on(processes):
    assert processes.call(compiled, 4) == [0.0] * 4


def sharded(_, process: int) -> Any:
    mesh = mesh_of((2, 2))
    inputs = draw_inputs(13, 7, 3, torch.float64)
    arguments = by_axes(mesh, inputs)
    loss, grads = mf_loss_and_grads(*arguments, inputs.reg)
    leaves = [parameter.detach().requires_grad_() for parameter in arguments[:5]]
    (3 * mf_loss(*leaves, *arguments[5:], inputs.reg, group=mesh)).backward()
    pairs = list(zip(leaves, grads, strict=True))
    same = all(torch.equal(leaf.grad.full_tensor(), 3 * grad.full_tensor()) for leaf, grad in pairs)
    sse = mf_sse(*arguments)
    return loss.full_tensor(), tuple(grad.full_tensor() for grad in grads), sse.full_tensor(), same


@pytest.mark.processes
def test_dtensors_over_four_processes(processes):
    inputs = draw_inputs(13, 7, 3, torch.float64)
    squares, _ = oracle_loss_and_grads(*inputs[:7], 0.0)
    for loss, grads, sse, same in processes.call(sharded, 4):
        assert_right(inputs, (loss, grads))
        torch.testing.assert_close(float(sse), float(squares), rtol=1e-12, atol=0)
        assert same
