"""Sparse ratings in the order of items: compressed rows of the transposed matrix, built once for encoded ratings."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from kernels.csr import index_dtype, indices_of, user_of_entries
from kernels.problem import Observations

# Columns whose ratings were put in the order of items: the state of all tensors at the time, and the result
_known = WeakIdKeyDictionary()


def by_item(observations: Observations) -> Observations:
    """Return the transposed ratings. Nothing waits for a device.

    The result is kept as long as the columns, and used again if no tensor has changed since: for encoded ratings, since
    the index tensors of a `torch.sparse_csr` are other objects at every access.

    Args:
        observations: sparse and checked, with rising columns in every row.
    """
    rows, columns = indices_of(observations)
    tensors = observations.ratings, rows, columns
    # Nobody counts changes of inference tensors, and what a graph captures is computed only when it is replayed
    capturing = rows.is_cuda and torch.cuda.is_current_stream_capturing()
    if capturing or any(tensor.is_inference() for tensor in tensors):
        return _transposed(observations)
    state = tuple((tensor._version, tensor.data_ptr(), len(tensor)) for tensor in tensors)
    known: tuple[Any, ...] | None = _known.get(columns)
    if known is None or known[:2] != (state, observations.items) or known[2]() is not rows:
        known = state, observations.items, weakref.ref(rows), _transposed(observations)
        _known[columns] = known
    result: Observations = known[3]
    return result._replace(levels=observations.levels)


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
