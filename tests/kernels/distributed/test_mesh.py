"""Users x items on a device mesh of simulated processes, and meshes that do not fit a call."""

from __future__ import annotations

from math import prod

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import Replicate
from torch.testing._internal.distributed.fake_pg import FakeStore

import kernels
from kernels.distributed import mf_loss, mf_loss_and_grads
from kernels.distributed.step import group_loss, group_step
from tests.kernels.distributed.evaluation import COLUMNS, ITEMS, ROWS, USERS, by_axes, parts
from tests.kernels.distributed.simulation import (
    assert_equal,
    divided,
    join,
    joined,
    of_parts,
    on_each,
    simulated,
)
from tests.problems import assert_right, draw_inputs


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
    ("shape", "names"),
    [
        ((2, 3), ("items", "users")),
        ((3, 2), ("users", "items")),
        ((3, 2), ("dp", "tp")),
        ((2, 3), ("dp", "users")),
        ((2, 3), ("items", "tp")),
    ],
    ids=str,
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


def test_dtensors_over_a_simulated_mesh():
    inputs = draw_inputs(13, 7, 3, torch.float64)
    with simulated(3, 2) as mesh:
        loss, grads = mf_loss_and_grads(*by_axes(mesh, inputs), inputs.reg)
        assert loss.placements == (Replicate(), Replicate())
        assert [grad.placements for grad in grads] == [value.placements for value in by_axes(mesh, inputs)[:5]]
        result = on_each(loss.full_tensor(), 6)[0], [on_each(grad.full_tensor(), 6)[-1] for grad in grads]
    assert_right(inputs, result)


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
