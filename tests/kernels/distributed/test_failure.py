"""A process that ends while the others wait for it."""

from __future__ import annotations

import os

import pytest
import torch.distributed as dist

from kernels.distributed import mf_loss_and_grads
from kernels.distributed.failure import naming_missing_processes
from kernels.distributed.group import Group
from tests.kernels.distributed.processes import Processes
from tests.problems import draw_inputs


def one_ends(group, process, doomed):
    inputs = draw_inputs(5, 7, 3)
    mf_loss_and_grads(*inputs, group=group)
    if process == doomed:
        os._exit(9)
    mf_loss_and_grads(*inputs, group=group)


@pytest.mark.processes
@pytest.mark.parametrize("doomed", [1, 2])
def test_the_others_name_a_process_that_ends(doomed):
    started = Processes(3, (3,))
    try:
        errors = started.call(one_ends, 3, doomed)
    finally:
        started.close()
    survivors = [process for process in range(3) if process != doomed]
    for process in survivors:
        with pytest.raises(RuntimeError, match=f"^group: a message of process {process} of 3 failed, and no word from "
                           f"process {doomed}: .*[Cc]onnection"):  # fmt: skip
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
