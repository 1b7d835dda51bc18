"""Groups that do not fit a call."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from kernels import mf_loss_and_grads as alone
from kernels.distributed import mf_loss, mf_loss_and_grads, mf_sse
from tests.problems import draw_inputs

INPUTS = draw_inputs(5, 7, 3)


@pytest.mark.parametrize("function", [mf_loss, mf_loss_and_grads])
def test_without_a_group(function):
    with pytest.raises(ValueError, match=r"^group: expected an initialised process group; call torch\.distributed"):
        function(*INPUTS)
    with pytest.raises(ValueError, match=r"^group: expected an initialised process group"):
        mf_sse(*INPUTS[:7])


@pytest.mark.usefixtures("one_process")
def test_something_else_as_group():
    message = r"^group: expected a torch\.distributed process group, a device mesh or None, got int"
    with pytest.raises(TypeError, match=message):
        mf_loss(*INPUTS, group=3)
    with pytest.raises(ValueError, match=r"^group: expected a group that this process belongs to"):
        mf_loss(*INPUTS, group=dist.GroupMember.NON_GROUP_MEMBER)


@pytest.mark.usefixtures("one_process")
def test_a_group_of_another_type_of_device():
    group = dist.new_group([0], backend="cuda:gloo")
    message = r"^group: expected one that communicates tensors on cpu, the device of the parameters, got cuda:gloo"
    with pytest.raises(ValueError, match=message):
        mf_loss(*INPUTS, group=group)


@pytest.mark.usefixtures("one_process")
def test_one_process_has_the_whole_problem():
    loss, grads = mf_loss_and_grads(*INPUTS)
    expected, whole = alone(*INPUTS)
    assert torch.equal(loss, expected)
    assert all(map(torch.equal, grads, whole))
    torch.testing.assert_close(mf_sse(*INPUTS[:7]), alone(*INPUTS[:7], reg=0.0)[0], rtol=1e-14, atol=0)


@pytest.mark.usefixtures("one_process")
def test_half_precision_parameters_are_refused_before_any_message():
    parameters = [parameter.bfloat16() for parameter in INPUTS[:5]]
    with pytest.raises(TypeError, match=r"^user_factors: expected float32 or float64, got torch\.bfloat16"):
        mf_loss(*parameters, *INPUTS[5:])
