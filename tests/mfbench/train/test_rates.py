"""Default learning rates: from the largest eigenvalue of the Hessian, and stable."""

import numpy as np
import pytest
import torch

from mfbench.providers import registry
from mfbench.train.loop import Diverged, train
from mfbench.train.rates import curvature
from mfbench.train.task import notebook_task
from reference import oracle_loss_and_grads

FUSED = registry.load("fused")


@pytest.mark.parametrize(("m", "n", "rank"), [(7, 5, 2), (12, 3, 1), (4, 9, 3)])
def test_curvature_is_the_largest_eigenvalue(m, n, rank):
    task = notebook_task((m, n), rank, seed=m)
    parameters = [parameter.double() for parameter in task.inputs[:5]]
    inputs = task.inputs._replace(**dict(zip(task.inputs._fields[:5], parameters, strict=True)))
    step, before = FUSED.prepare(inputs), [parameter.clone() for parameter in parameters]
    found = curvature(step, parameters, iterations=200)
    for parameter, at in zip(parameters, before, strict=True):
        assert torch.equal(parameter, at)

    sizes, shapes = [p.numel() for p in parameters], [p.shape for p in parameters]

    def slope(flat):
        split = [part.reshape(shape) for part, shape in zip(flat.split(sizes), shapes, strict=True)]
        grads = oracle_loss_and_grads(*split, inputs.ratings, inputs.mask)[1]
        return torch.cat([torch.from_numpy(np.asarray(grad)).flatten() for grad in grads])

    at = torch.cat([parameter.flatten() for parameter in parameters])
    nudges = torch.eye(len(at), dtype=torch.float64) * 1e-5
    hessian = torch.stack([(slope(at + nudge) - slope(at - nudge)) / 2e-5 for nudge in nudges])
    expected = torch.linalg.eigvalsh((hessian + hessian.T) / 2).abs().max()
    assert found == pytest.approx(float(expected), rel=0.02)


def test_a_rate_just_over_the_limit_diverges_and_one_just_under_does_not():
    def run(factor):
        task = notebook_task()
        step = FUSED.prepare(task.inputs)
        return train(task, FUSED, 1500, lr=factor * 2 / curvature(step, task.inputs[:5]))

    with pytest.raises(Diverged):
        run(1.1)
    assert run(0.9).entries[-1].loss < 100_000


def test_a_larger_notebook_trains_at_a_smaller_default_rate():
    run = train(notebook_task((300, 500), rank=5), FUSED, epochs=300)
    assert 1e-6 < run.learning_rate < 1e-5
    assert run.entries[-1].loss < run.entries[0].loss / 3
