"""`DTensor` arguments."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

from kernels.distributed import mf_loss, mf_loss_and_grads, mf_sse
from reference import oracle_loss_and_grads
from tests.kernels.distributed.simulation import on_each, simulated
from tests.problems import assert_right, draw_inputs

NAMES = ["user_factors", "item_factors", "user_bias", "item_bias", "global_bias", "ratings", "mask"]
BY_USERS = ("user_factors", "user_bias", "ratings", "mask")


def placements(name):
    return [Shard(0) if name in BY_USERS else Replicate()]


def distributed(inputs, mesh):
    return [
        value if value is None else distribute_tensor(value, mesh, placements(name))
        for name, value in zip(NAMES, inputs[:7], strict=True)
    ]


def whole(value):
    return value.full_tensor()


@pytest.mark.parametrize("processes", [2, 3, 5])
@pytest.mark.parametrize("mask_dtype", [torch.bool, None], ids=str)
def test_simulated_processes(processes, mask_dtype):
    inputs = draw_inputs(13, 7, 3, torch.float64, mask_dtype=mask_dtype)  # of 5 processes the last has 1 user
    with simulated(processes) as mesh:
        loss, grads = mf_loss_and_grads(*distributed(inputs, mesh), inputs.reg)
        assert loss.placements == (Replicate(),)
        for name, grad in zip(NAMES, grads, strict=False):
            assert grad.placements == tuple(placements(name))
        result = on_each(whole(loss), processes)[0], [on_each(whole(grad), processes)[-1] for grad in grads]
    assert_right(inputs, result)


def every_function(group, process, users):
    mesh = dist.DeviceMesh.from_group(group, "cpu")
    inputs = draw_inputs(users, 7, 3, torch.float64)
    arguments = distributed(inputs, mesh)
    loss, grads = mf_loss_and_grads(*arguments, inputs.reg)
    leaves = [parameter.detach().requires_grad_() for parameter in arguments[:5]]
    differentiable = mf_loss(*leaves, *arguments[5:], inputs.reg)
    (3 * differentiable).backward()
    pairs = list(zip(leaves, grads, strict=True))
    same = all(torch.equal(whole(leaf.grad), 3 * whole(grad)) for leaf, grad in pairs)
    kept = all(leaf.grad.placements == leaf.placements == grad.placements for leaf, grad in pairs)
    local = [value.to_local() for value in arguments[5:]]
    beside = mf_loss(*arguments[:5], *local, inputs.reg)
    sse = mf_sse(*arguments)
    results = whole(loss), tuple(map(whole, grads)), whole(beside), whole(sse)
    return *results, same and kept


@pytest.mark.processes
@pytest.mark.parametrize("users", [13, 4, 1, 0])
def test_processes(processes, users):
    inputs = draw_inputs(users, 7, 3, torch.float64)
    squares, _ = oracle_loss_and_grads(*inputs[:7], 0.0)
    for loss, grads, beside, sse, kept in processes.call(every_function, 3, users):
        assert_right(inputs, (loss, grads))
        torch.testing.assert_close(float(beside), float(loss), rtol=1e-13, atol=0)
        torch.testing.assert_close(float(sse), float(squares), rtol=1e-12, atol=0)
        assert kept


def uneven(group, process):
    mesh = dist.DeviceMesh.from_group(group, "cpu")
    inputs = draw_inputs((5, 3)[process], 7, 3)
    items = draw_inputs(5, 7, 3)
    arguments = [
        DTensor.from_local(
            getattr(inputs if name in BY_USERS else items, name), mesh, placements(name), run_check=False
        )
        for name in NAMES
    ]
    return mf_loss(*arguments)


@pytest.mark.processes
def test_uneven_shards_are_refused_on_every_process(processes):
    errors = processes.call(uneven, 2)
    assert all(isinstance(error, ValueError) for error in errors), errors
    assert any("as torch.chunk shards them, which is all that a DTensor can describe" in str(error) for error in errors)


@pytest.fixture(scope="module")
def mesh():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


INPUTS = draw_inputs(5, 7, 3)


@pytest.mark.parametrize("place", range(7))
def test_wrong_placements_are_named(mesh, place):
    arguments = distributed(INPUTS, mesh)
    wrong = [Replicate()] if NAMES[place] in BY_USERS else [Shard(0)]
    arguments[place] = distribute_tensor(INPUTS[place], mesh, wrong)
    with pytest.raises(ValueError, match=rf"^{NAMES[place]}: expected placements \(.*\), got \("):
        mf_loss(*arguments)


@pytest.mark.parametrize("place", range(5))
def test_a_plain_parameter_among_sharded_ones_is_named(mesh, place):
    arguments = distributed(INPUTS, mesh)
    arguments[place] = INPUTS[place]
    with pytest.raises(TypeError, match=rf"^{NAMES[place]}: expected a DTensor as \w+, got Tensor"):
        mf_loss(*arguments)


def test_sparse_ratings_beside_sharded_parameters(mesh):
    entries = torch.where(INPUTS.mask, INPUTS.ratings, torch.zeros(())).to_sparse_csr()
    loss, grads = mf_loss_and_grads(*distributed(INPUTS, mesh)[:5], entries)
    inputs = INPUTS._replace(ratings=entries, mask=None)
    assert_right(inputs, (whole(loss), [whole(grad) for grad in grads]))


def test_a_mesh_of_three_dimensions_is_refused(mesh):
    three = init_device_mesh("cpu", (1, 1, 1))
    arguments = [distribute_tensor(value, three, [Replicate()] * 3) for value in INPUTS[:7]]
    with pytest.raises(ValueError, match=r"^user_factors: expected a device mesh of users, or of users x items; got 3"):
        mf_loss(*arguments)


def test_another_group_beside_a_mesh_is_refused(mesh):
    with pytest.raises(ValueError, match=r"^group: expected None or the group of the DTensors' mesh"):
        mf_loss(*distributed(INPUTS, mesh), group=dist.new_group([0]))
