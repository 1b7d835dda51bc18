"""The fused step over the processes of a torch.distributed group or mesh, each with its own part of the ratings."""

from kernels.distributed.loss import mf_loss, mf_loss_and_grads, mf_sse

__all__ = ["mf_loss", "mf_loss_and_grads", "mf_sse"]
