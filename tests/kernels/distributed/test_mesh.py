"""Users x items on a device mesh: every process has a block of the ratings."""

from __future__ import annotations

import functools
from itertools import pairwise, product
from math import prod
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.testing._internal.distributed.fake_pg import FakeStore

import kernels
from kernels.distributed import mf_loss, mf_loss_and_grads, mf_sse
from kernels.distributed.step import group_loss, group_step
from mfbench.problems.inputs import Inputs
from reference import oracle_loss_and_grads
from tests.kernels.distributed.evaluation import ITEMS, KINDS, USERS, check, drawn, encoded, evaluated
from tests.kernels.distributed.processes import Processes
from tests.kernels.distributed.simulation import (
    assert_equal,
    block_of,
    divided,
    join,
    joined,
    of_parts,
    on_each,
    simulated,
)
from tests.problems import assert_right, draw_inputs

ROWS = {1: (0, USERS), 2: (0, 30, USERS), 3: (0, 30, 30, USERS), 4: (0, 1, 30, USERS, USERS)}
COLUMNS = {1: (0, ITEMS), 2: (0, 20, ITEMS), 4: (0, 1, 20, 20, ITEMS)}
SHAPES = [(2, 2), (1, 4), (4, 1)]


def parts(inputs: Inputs, shape: tuple[int, int], kind: str = "") -> list[Inputs]:
    """Return what every process of a mesh passes."""
    blocks = product(pairwise(ROWS[shape[0]]), pairwise(COLUMNS[shape[1]]))
    return [encoded(block_of(inputs, slice(*users), slice(*items)), kind) for users, items in blocks]


# Several simulated processes


@pytest.mark.parametrize("shape", [(2, 2), (3, 2), (1, 4), (2, 1)], ids=str)
@pytest.mark.parametrize(("dtype", "mask_dtype"), [(torch.float32, torch.bool), (torch.float64, None)], ids=str)
@pytest.mark.parametrize("deterministic", [False, True])
def test_result_of_any_blocks(shape, dtype, mask_dtype, deterministic):
    inputs = draw_inputs(USERS, ITEMS, 6, dtype, mask_dtype=mask_dtype, columns=deterministic)
    with simulated(*shape) as mesh:
        of = divided(inputs, ROWS[shape[0]], mesh, COLUMNS[shape[1]], deterministic=deterministic)
        loss, grads = group_step(of)
        alone = group_loss(of, differentiable=False)
    result = joined(loss, grads, prod(shape), shape)
    assert_right(inputs, result)
    for one in on_each(alone, prod(shape)):
        torch.testing.assert_close(one, result[0], rtol=1e-13, atol=0)


def test_an_observed_nan_of_one_block_reaches_its_users_and_items_everywhere():
    inputs = draw_inputs(8, 9, 3)
    inputs.ratings[6, 2], inputs.mask[6, 2] = float("nan"), True
    with simulated(2, 2) as mesh:
        loss, grads = joined(*group_step(divided(inputs, (0, 5, 8), mesh, (0, 4, 9))), 4, (2, 2))
    _, expected = kernels.mf_loss_and_grads(*inputs)
    assert loss.isnan()
    for grad, alone in zip(grads, expected, strict=True):
        assert torch.equal(grad.isnan(), alone.isnan())


@pytest.mark.parametrize(
    ("shape", "names"), [((2, 3), ("items", "users")), ((3, 2), ("users", "items")), ((3, 2), ("dp", "tp"))], ids=str
)
def test_dimensions_of_a_mesh_are_found_by_their_names_or_order(shape, names):
    inputs = draw_inputs(USERS, ITEMS, 4, torch.float64)
    blocks = parts(inputs, (3, 2))
    order = range(6) if shape == (3, 2) else [row * 2 + column for column in range(2) for row in range(3)]
    with simulated(*shape, names=names) as mesh:
        loss, grads = group_step(of_parts([blocks[place] for place in order], mesh))
    each = [on_each(value, 6) for value in (loss, *grads)]
    assert_right(inputs, join(*([held[order.index(place)] for place in range(6)] for held in each), shape=(3, 2)))


def test_a_mesh_of_one_dimension_divides_what_its_name_says():
    inputs = draw_inputs(8, 9, 3)
    for name, users, items, shape in (("dp", (0, 5, 8), None, (2, 1)), ("items", (0, 8), (0, 4, 9), (1, 2))):
        with simulated(2, names=(name,)) as mesh:
            loss, grads = group_step(divided(inputs, users, mesh, items))
        assert_right(inputs, joined(loss, grads, 2, shape))


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (0, r"user_factors: .* on every process with block 1 of the users, .* on process \(1, 0\) and .* \(1, 1\)"),
        (3, r"item_bias: .* on every process with block 1 of the items, .* on process \(0, 1\) and .* \(1, 1\)"),
        (4, r"global_bias: .* on every process, got .* on process \(0, 0\) and .* \(1, 1\)"),
    ],
)
def test_parameters_that_differ_are_named(place, message):
    inputs = draw_inputs(8, 9, 3)
    with simulated(2, 2) as mesh:
        of = divided(inputs, (0, 5, 8), mesh, (0, 4, 9))
        tensors = of.call.parameters[place]._local_tensors
        tensors[3] = tensors[3] + 1
        with pytest.raises(ValueError, match=f"^{message}$"):
            group_step(of)


def by_axes(mesh: DeviceMesh, inputs: Inputs) -> list[Any]:
    """Return the arguments as `DTensor`s."""
    whole = [Replicate(), Replicate()]
    of_users, of_items, block = [Shard(0), Replicate()], [Replicate(), Shard(0)], [Shard(0), Shard(1)]
    placements = (of_users, of_items, of_users, of_items, whole, block, block)
    return [distribute_tensor(value, mesh, where) for value, where in zip(inputs[:7], placements, strict=True)]


def test_dtensors_over_a_simulated_mesh():
    inputs = draw_inputs(13, 7, 3, torch.float64)
    with simulated(3, 2) as mesh:
        loss, grads = mf_loss_and_grads(*by_axes(mesh, inputs), inputs.reg)
        assert loss.placements == (Replicate(), Replicate())
        assert [grad.placements for grad in grads] == [value.placements for value in by_axes(mesh, inputs)[:5]]
        result = on_each(loss.full_tensor(), 6)[0], [on_each(grad.full_tensor(), 6)[-1] for grad in grads]
    assert_right(inputs, result)


# Meshes that do not fit a call


@pytest.fixture
def one_process():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("one_process")
def test_a_mesh_of_other_dimensions():
    mesh = init_device_mesh("cpu", (1, 1, 1))
    message = r"^group: expected a device mesh of users, or of users x items; got 3 dimensions$"
    with pytest.raises(ValueError, match=message):
        mf_loss(*draw_inputs(5, 7, 3), group=mesh)


def test_a_mesh_of_other_processes():
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=4)
    try:
        with pytest.raises(ValueError, match=r"^group: expected a device mesh that this process belongs to"):
            mf_loss(*draw_inputs(5, 7, 3), group=DeviceMesh("cpu", [[1, 2]]))
    finally:
        dist.destroy_process_group()


@pytest.mark.usefixtures("one_process")
def test_one_process_has_the_whole_problem():
    inputs = draw_inputs(5, 7, 3)
    mesh = init_device_mesh("cpu", (1, 1))
    loss, grads = mf_loss_and_grads(*inputs, deterministic=True, group=mesh)
    assert_right(inputs, (loss, grads))
    leaves = [parameter.requires_grad_() for parameter in inputs[:5]]
    differentiable = mf_loss(*leaves, *inputs[5:], deterministic=True, group=mesh)
    differentiable.backward()
    assert_equal(differentiable.detach(), loss)
    for leaf, grad in zip(leaves, grads, strict=True):
        assert_equal(leaf.grad, grad)


# Processes with gloo


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
