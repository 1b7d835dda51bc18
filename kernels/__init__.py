"""The fused step of biased, masked matrix factorization: loss and every gradient in one pass over the ratings."""

from kernels.backends import Backend, backends
from kernels.encoded import EncodedRatings
from kernels.encoding import encode_ratings
from kernels.loss import mf_loss, mf_loss_and_grads, mf_sse
from kernels.problem import Grads

__all__ = [
    "Backend",
    "EncodedRatings",
    "Grads",
    "backends",
    "encode_ratings",
    "mf_loss",
    "mf_loss_and_grads",
    "mf_sse",
]
