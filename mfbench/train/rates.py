"""Default learning rates, stable at the start."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kernels import mf_sse
from mfbench.providers.registry import Step
from mfbench.train import preconditioner
from mfbench.train.options import Optimizer
from mfbench.train.task import Task

NOTEBOOK_RATE = 1e-5
ADAM_RATE = 3e-3  # at errors of about 1, as of stars from 1 to 5


def curvature(step: Step, parameters: Sequence[Tensor], iterations: int = 10) -> float:
    """Return the largest eigenvalue of the loss's Hessian, by power iteration on differences of gradients.

    Gradient descent with rate `lr` is stable if `lr * curvature < 2`. The iteration starts at a shift of all
    predictions, which is nearly the direction of largest curvature, 2 * (observed entries), so a few rounds are enough.

    Args:
        step: loss and gradients at the present parameters.
        parameters: of the step; changed meanwhile, and restored.
        iterations: of the power method.
    """
    generator = torch.Generator("cpu").manual_seed(0)
    shift = [0.0, 0.0, 1 / max(1, len(parameters[0])), 1 / max(1, len(parameters[1])), 1.0]
    direction = [
        torch.randn(p.shape, generator=generator, device="cpu").to(p) * 0.01 / math.sqrt(max(1, p.numel())) + along
        for p, along in zip(parameters, shift, strict=True)
    ]
    start, largest = [p.clone() for p in parameters], 0.0
    distance = 0.1  # the loss is a polynomial of degree four, near its quadratic part at this distance
    for _ in range(iterations):
        norm = _norm(direction)
        slopes = []
        for side in (distance, -distance):
            for p, at, along in zip(parameters, start, direction, strict=True):
                p.copy_(at).add_(along, alpha=side / norm)
            slopes.append([grad.clone() for grad in step()[1]])
        direction = [(up - down) / (2 * distance) for up, down in zip(*slopes, strict=True)]
        largest = _norm(direction)
    for p, at in zip(parameters, start, strict=True):
        p.copy_(at)
    return largest


def _norm(tensors: Sequence[Tensor]) -> float:
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors)) or 1.0


def default_rate(task: Task, optimizer: Optimizer, step: Step) -> float:
    """Return a rate that suits the task at the start; `train` halves it if training diverges later.

    For plain descent and momentum: half the stability limit of plain descent, or the notebook's rate on its own task.
    For Adam: proportional to what the parameters have to move, as `adam_rate` says. Preconditioned gradients have the
    scale of the parameters, and one rate for all data.
    """
    if optimizer == "preconditioned":
        return preconditioner.RATE
    if optimizer == "adam":
        return adam_rate(task)
    along_global_bias = 2.0 * task.inputs.observed  # exact, where rounding of large ratings hides small differences
    rate = 1 / max(along_global_bias, curvature(step, task.inputs[:5]))
    return NOTEBOOK_RATE if task.name == "seed" and optimizer == "sgd" and 1.5 * rate > NOTEBOOK_RATE else rate


def adam_rate(task: Task) -> float:
    """Return Adam's rate, in proportion to the size of the parameters that explain the errors at the start.

    Adam moves each parameter by about the rate, whatever its gradient. Biases explain errors of their own size;
    factors, which are multiplied, errors of the square of theirs.
    """
    parameters, inputs = task.inputs[:5], task.inputs
    rms = math.sqrt(float(mf_sse(*parameters, inputs.ratings, inputs.mask)) / max(1, inputs.observed))
    if not 0 < rms < math.inf:
        return ADAM_RATE
    return ADAM_RATE * (math.sqrt(rms) if inputs.user_factors.shape[1] else rms)
