"""The notebook's training step: its expressions, on a matrix or on triplets, differentiated by torch autograd."""

from __future__ import annotations

import torch
from torch import Tensor

from reference.problem import Problem, Triplets, with_arguments

PROMOTED = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
            torch.float16, torch.bfloat16, torch.float32, torch.float64)  # fmt: skip


def notebook_loss(p: Tensor, q: Tensor, bu: Tensor, bi: Tensor, u: Tensor,
                  rating_matrix: Tensor, mask_matrix: Tensor, reg: float = 0.1) -> Tensor:  # fmt: skip
    """Return the notebook's loss, expression by expression, in the dtypes given.

    Shapes: p (m, k), q (n, k), bu (m, 1), bi (n, 1), u () or (1,); rating_matrix (m, n), finite;
    mask_matrix (m, n), the weights of the errors: zeros and ones, or any others.
    """
    r_predict = torch.mm(p, q.t()) + bu + bi.t() + u
    return torch.sum((r_predict * mask_matrix - rating_matrix * mask_matrix).pow(2)) + reg * (
        bu.pow(2).sum() + bi.pow(2).sum() + p.pow(2).sum() + q.pow(2).sum()
    )


def gather_loss(p: Tensor, q: Tensor, bu: Tensor, bi: Tensor, u: Tensor,
                users: Tensor, items: Tensor, ratings: Tensor, reg: float = 0.1) -> Tensor:  # fmt: skip
    """Return the notebook's loss of the observed ratings alone, as PyTorch users write it for triplets.

    Shapes: p (m, k), q (n, k), bu and bi of m and n elements, u () or (1,); users, items and ratings (observed,).
    """
    products = torch.sum(p.index_select(0, users) * q.index_select(0, items), dim=1)
    r_predict = products + bu.flatten().index_select(0, users) + bi.flatten().index_select(0, items) + u
    return torch.sum((r_predict - ratings).pow(2)) + reg * (
        bu.pow(2).sum() + bi.pow(2).sum() + p.pow(2).sum() + q.pow(2).sum()
    )


def notebook_operands(
    ratings: Tensor, mask: Tensor | None, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Return ratings and mask in the form that the notebook's expressions need.

    The notebook multiplies by the mask, so a bool or integer mask must be 0 or 1 in a dtype that PyTorch promotes; and
    since 0 * NaN is NaN, an unobserved rating that is not finite becomes 0. Weights are widened to the parameters'
    dtype, or their products with the ratings would be rounded to fewer bits. Suitable operands are returned unchanged.

    Args:
        dtype: of the parameters; only weights depend on it.
    """
    observed = ~torch.isnan(ratings) if mask is None else mask.bool()
    operand = observed
    if mask is not None and mask.dtype in PROMOTED and torch.equal(observed, mask):
        operand = mask  # zeros and ones
    elif mask is not None and mask.is_floating_point():
        operand = mask.detach().to(torch.promote_types(dtype, mask.dtype if mask.dtype in PROMOTED else dtype))
    if not torch.isfinite(ratings).all():
        ratings = ratings.masked_fill(~observed, 0)
    return ratings, operand


@with_arguments(Problem)
def autograd_loss_and_grads(problem: Problem) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return loss and gradients by torch autograd of `notebook_loss`, or of `gather_loss` for sparse ratings.

    Args:
        The fields of `Problem`.

    Returns:
        The loss (0-d, in the dtype that the expressions promote to) and the gradients of the five
        parameters in parameter order, each with its parameter's shape and dtype.

    Raises:
        ValueError: sparse ratings come with a mask.
    """
    *given, ratings, mask, reg = problem
    with torch.inference_mode(False), torch.enable_grad():  # whatever mode the caller is in
        parameters = [parameter.detach().requires_grad_() for parameter in given]
        p, q, bu, bi, u = parameters
        if ratings.layout == torch.sparse_csr:
            loss = gather_loss(p, q, bu, bi, u, *Triplets.of(ratings, mask), reg)
        else:
            operands = notebook_operands(ratings, mask, p.dtype)
            loss = notebook_loss(p, q, bu.reshape(-1, 1), bi.reshape(-1, 1), u, *operands, reg)
        return loss.detach(), torch.autograd.grad(loss, parameters)
