"""The fused step over the processes of a torch.distributed group, each with its own users and every item."""

from kernels.distributed.loss import mf_loss, mf_loss_and_grads, mf_sse

__all__ = ["mf_loss", "mf_loss_and_grads", "mf_sse"]
