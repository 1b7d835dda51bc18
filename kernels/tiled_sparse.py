"""The sparse part of backend `torch`: a loop over blocks of observed ratings in plain PyTorch. Any device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from kernels.csr import indices_of, user_of_entries, with_rising_columns
from kernels.decoding import decode_codes
from kernels.problem import Grads, Problem, squared_norms

# Elements of the factors gathered for one block: on a CPU what stays in cache, elsewhere enough to fill the device
BLOCK_ELEMENTS = {"cpu": 1 << 18}
BLOCK_ELEMENTS_ELSEWHERE = 1 << 24


def sparse_step(problem: Problem, deterministic: bool, gradients: bool) -> tuple[Tensor, Grads | None]:
    """Return the loss (0-d float64) and, if requested, the gradients of one step. No temporary exceeds a block.

    Raises:
        ValueError: an index of the ratings is out of range or repeated.
    """
    observations = with_rising_columns(problem.observations)
    rows, columns = indices_of(observations)
    m, n, rank = problem.shape
    P, Q, bu, bi, mu = (parameter.detach() for parameter in problem.parameters)
    dP, dQ = (torch.zeros_like(factors, memory_format=torch.contiguous_format) for factors in (P, Q))
    d_user_bias, d_item_bias, sse = (P.new_zeros(shape, dtype=torch.float64) for shape in (m, n, ()))
    bu_mu, bi = bu.reshape(m) + mu, bi.reshape(n)

    elements = BLOCK_ELEMENTS.get(problem.device.type, BLOCK_ELEMENTS_ELSEWHERE)
    block = max(1, elements // max(1, rank))
    with _deterministic_sums(deterministic and problem.device.type != "cpu"):
        for start in range(0, len(columns), block):
            stop = min(start + block, len(columns))
            users, items = user_of_entries(rows, start, stop), columns[start:stop].long()
            ratings = observations.ratings.detach()[start:stop]
            if observations.levels is not None:
                ratings = decode_codes(ratings, observations.levels, P.dtype)
            p, q = P[users], Q[items]  # [block, rank]
            e = (p * q).sum(1) + bu_mu[users] + bi[items] - ratings
            e = e.to(P.dtype)  # float64 ratings widen it
            if gradients:
                dP.index_add_(0, users, e[:, None] * q)
                dQ.index_add_(0, items, e[:, None] * p)
                d_user_bias.index_add_(0, users, e.double())
                d_item_bias.index_add_(0, items, e.double())
            sse += e.square().sum(dtype=torch.float64)
    return finish(problem, sse, (dP, dQ, d_user_bias, d_item_bias) if gradients else None)


def finish(problem: Problem, sse: Tensor, halves: tuple[Tensor, ...] | None) -> tuple[Tensor, Grads | None]:
    """Return the loss and the gradients with the regulariser.

    Args:
        sse: the sum of squared errors, 0-d float64.
        halves: half the derivatives of `sse` by the factors and the biases, the latter float64; None: no gradients.
    """
    loss = sse + problem.reg * squared_norms(problem.parameters[:4])
    if halves is None:
        return loss, None
    sums = (*halves, halves[2].sum())
    regularised = zip(sums, problem.parameters, (problem.reg,) * 4 + (0.0,), strict=True)
    return loss, Grads(*(2 * (d.reshape(p.shape) + reg * p.detach()).to(p.dtype) for d, p, reg in regularised))


@contextmanager
def _deterministic_sums(wanted: bool) -> Iterator[None]:
    """Make `index_add_` add in a fixed order, which on a GPU it does only where PyTorch is set to."""
    before, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    if wanted:
        torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        if wanted:
            torch.use_deterministic_algorithms(before, warn_only=warn_only)
