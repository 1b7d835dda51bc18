"""Sparse ratings in the order of items: compressed rows of the transposed matrix, built once for encoded ratings."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.csr import index_dtype, indices_of, user_of_entries
from kernels.problem import Observations
from kernels.unchanged import Unchanged

_known: Unchanged[Observations] = Unchanged()  # the transposed ratings, by columns, row pointers and values


def by_item(observations: Observations) -> Observations:
    """Return the transposed ratings. Nothing waits for a device.

    The result is kept as long as the columns, and used again if no tensor has changed since: for encoded ratings, since
    the index tensors of a `torch.sparse_csr` are other objects at every access.

    Args:
        observations: sparse and checked, with rising columns in every row.
    """
    rows, columns = indices_of(observations)
    if rows.is_cuda and torch.cuda.is_current_stream_capturing():  # computed only when the graph is replayed
        return _transposed(observations)
    tensors = columns, rows, observations.ratings
    known = _known.get(tensors)
    if known is None or known.shape != observations.shape[::-1]:
        known = _transposed(observations)
        _known.keep(tensors, known)
    return known._replace(levels=observations.levels)


def _transposed(observations: Observations) -> Observations:
    rows, columns = indices_of(observations)
    m, n = observations.shape
    wide = columns if columns.dtype is torch.int64 else columns.to(torch.int32)  # not every device sorts uint16
    items, order = wide.sort(stable=True)
    pointers = torch.searchsorted(items, _numbers(n + 1, items), out_int32=False)
    users = user_of_entries(rows, 0, len(columns))[order].to(index_dtype(m))
    ratings = observations.ratings.detach()[order]
    return observations._replace(ratings=ratings, rows=pointers, columns=users, items=m)


def _numbers(count: int, like: Tensor) -> Tensor:
    return torch.arange(count, dtype=like.dtype, device=like.device)
