"""The step over simulated processes against the oracle."""

from __future__ import annotations

import pytest
import torch

from kernels import backends, mf_loss_and_grads
from kernels.distributed import mf_loss
from kernels.distributed.step import group_loss, group_step
from tests.kernels.distributed.simulation import divided, joined, on_each, simulated
from tests.problems import assert_right, draw_inputs

BOUNDS = [(0, 20, 33), (0, 20, 20, 33), (0, 0, 1, 33, 33, 33)]
CPU_BACKENDS = [name for name in ("native", "torch", "interpret") if backends()[name].available]


@pytest.mark.parametrize("bounds", BOUNDS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("mask_dtype", [torch.bool, None, torch.float32], ids=str)
@pytest.mark.parametrize("deterministic", [False, True])
def test_result_of_any_division_of_the_users(bounds, dtype, mask_dtype, deterministic):
    inputs = draw_inputs(33, 47, 6, dtype, mask_dtype=mask_dtype, columns=deterministic)
    with simulated(len(bounds) - 1) as mesh:
        loss, grads = group_step(divided(inputs, bounds, mesh, deterministic=deterministic))
    assert_right(inputs, joined(loss, grads, len(bounds) - 1))


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_result_of_every_backend(backend):
    inputs = draw_inputs(20, 17, 5, columns=False)
    with simulated(3) as mesh:
        loss, grads = group_step(divided(inputs, (0, 12, 13, 20), mesh, backend=backend))
    assert_right(inputs, joined(loss, grads, 3))


@pytest.mark.parametrize("bounds", BOUNDS, ids=str)
@pytest.mark.parametrize("reg", [0.0, 2.5])
def test_loss_alone_is_that_of_the_step(bounds, reg):
    inputs = draw_inputs(33, 47, 6, torch.float64, reg=reg)
    with simulated(len(bounds) - 1) as mesh:
        of = divided(inputs, bounds, mesh)
        (first, *others), expected = (
            on_each(loss, len(bounds) - 1) for loss in (group_loss(of, differentiable=False), group_step(of)[0])
        )
    assert all(torch.equal(first, other) for other in others)
    torch.testing.assert_close(first, expected[0], rtol=1e-13, atol=0)


@pytest.mark.parametrize("shape", [(0, 7, 3), (5, 0, 3), (5, 7, 0), (0, 0, 0)])
def test_empty_sizes(shape):
    inputs = draw_inputs(*shape)
    bounds = (0, shape[0] // 2, shape[0])
    with simulated(2) as mesh:
        loss, grads = group_step(divided(inputs, bounds, mesh))
    assert_right(inputs, joined(loss, grads, 2))


def test_an_observed_nan_of_one_process_reaches_its_items_everywhere():
    inputs = draw_inputs(8, 9, 3)
    inputs.ratings[6, 2], inputs.mask[6, 2] = float("nan"), True
    with simulated(2) as mesh:
        loss, grads = joined(*group_step(divided(inputs, (0, 5, 8), mesh)), 2)
    _, expected = mf_loss_and_grads(*inputs)
    assert loss.isnan()
    for grad, alone in zip(grads, expected, strict=True):
        assert torch.equal(grad.isnan(), alone.isnan())


@pytest.mark.usefixtures("one_process")
def test_transforms_are_refused():
    *parameters, ratings, mask, reg = draw_inputs(5, 7, 3)
    with pytest.raises(RuntimeError, match=r"kernels\.distributed: expected a plain call"):
        torch.func.grad(lambda P: mf_loss(P, *parameters[1:], ratings, mask, reg))(parameters[0])


@pytest.mark.usefixtures("one_process")
def test_deterministic_algorithms_imply_deterministic_sums(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "kernels.distributed.step.sum_over_processes",
        lambda tensors, numbers, group, deterministic: seen.append(deterministic) or [*tensors, *numbers],
    )
    inputs = draw_inputs(5, 7, 3)
    mf_loss(*inputs)
    torch.use_deterministic_algorithms(True)
    try:
        mf_loss(*inputs)
    finally:
        torch.use_deterministic_algorithms(False)
    mf_loss(*inputs, deterministic=True)
    assert seen == [False, False, True, True, True, True]  # along either axis


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("reg", [float("nan"), "0.1"])
def test_reg_is_checked(reg):
    with pytest.raises((TypeError, ValueError), match=r"^reg: expected a finite number"):
        mf_loss(*draw_inputs(5, 7, 3)[:7], reg)
