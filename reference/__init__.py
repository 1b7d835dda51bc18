"""Reference implementations: the notebook's training step with autograd, and the closed form in float64."""

from reference.autograd import autograd_loss_and_grads
from reference.oracle import oracle_loss_and_grads
from reference.problem import Problem

__all__ = ["Problem", "autograd_loss_and_grads", "oracle_loss_and_grads"]
