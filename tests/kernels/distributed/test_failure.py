"""A process that ends while the others wait for it."""

from __future__ import annotations

import os

import pytest
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from kernels.distributed import mf_loss_and_grads
from kernels.distributed.failure import naming_missing_processes
from kernels.distributed.group import Group
from tests.kernels.distributed.processes import Processes
from tests.kernels.distributed.simulation import block_of
from tests.problems import draw_inputs


def one_ends(group, process, doomed, on_mesh):
    inputs = draw_inputs(5, 7, 3)
    if on_mesh:
        group = init_device_mesh("cpu", (1, 3))
        inputs = block_of(inputs, slice(None), slice(process, process + 2))
    mf_loss_and_grads(*inputs, group=group)
    if process == doomed:
        os._exit(9)
    mf_loss_and_grads(*inputs, group=group)


@pytest.mark.processes
@pytest.mark.parametrize(("doomed", "on_mesh"), [(1, False), (2, False), (1, True)])
def test_the_others_name_a_process_that_ends(doomed, on_mesh):
    started = Processes(3, (3,))
    try:
        errors = started.call(one_ends, 3, doomed, on_mesh)
    finally:
        started.close()
    along = " along the mesh's items" if on_mesh else ""
    survivors = [process for process in range(3) if process != doomed]
    for process in survivors:
        message = f"^group: a message of process {process} of 3{along} failed, and no word from process {doomed}: "
        with pytest.raises(RuntimeError, match=f"{message}.*[Cc]onnection"):
            raise errors[process]


def test_other_errors_pass():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        group = Group(dist.group.WORLD, 0, 1)
        with pytest.raises(ValueError, match=r"^other$"), naming_missing_processes(group):
            raise ValueError("other")
        message = "^group: a message of process 0 of 1 failed, and those of all others, too: lost$"
        with pytest.raises(RuntimeError, match=message), naming_missing_processes(group):
            raise RuntimeError("lost\nmore")
    finally:
        dist.destroy_process_group()
    with pytest.raises(RuntimeError, match=r"others cannot be asked: lost$"), naming_missing_processes(group):
        raise RuntimeError("lost")
