"""What is right: the notebook's step with autograd, and a closed form in float64 beside it."""

from reference.autograd import autograd_loss_and_grads
from reference.oracle import oracle_loss_and_grads

__all__ = ["autograd_loss_and_grads", "oracle_loss_and_grads"]
