"""Dense and sparse rating matrices: convert one into the other, take them apart, slice their rows."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

BLOCK_ELEMENTS = 1 << 22  # places of a dense matrix examined at once, to bound the memory of temporaries


def is_sparse(matrix: Tensor) -> bool:
    """Return whether a matrix is torch.sparse_csr."""
    return matrix.layout == torch.sparse_csr


def csr(starts: Tensor, columns: Tensor, values: Tensor, shape: Sequence[int]) -> Tensor:
    """Return a torch.sparse_csr matrix that shares the memory of its parts, which are not checked."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(starts, columns, values, tuple(shape), check_invariants=False)


def parts(tensor: Tensor) -> tuple[Tensor, ...]:
    """Return the strided tensors that hold a tensor: itself, or row starts, columns and values."""
    if not is_sparse(tensor):
        return (tensor,)
    return tensor.crow_indices(), tensor.col_indices(), tensor.values()


def with_parts(tensor: Tensor, changed: Sequence[Tensor]) -> Tensor:
    """Return a tensor of the same layout and shape made of other parts, in the order of `parts`."""
    return csr(*changed, tensor.shape) if is_sparse(tensor) else changed[0]


def size_in_bytes(tensor: Tensor) -> int:
    """Return the bytes of all parts together."""
    return sum(part.nbytes for part in parts(tensor))


def rows(matrix: Tensor, wanted: slice) -> Tensor:
    """Return a range of the rows as a matrix; only the row starts of a sparse one are copied."""
    if not is_sparse(matrix):
        return matrix[wanted]
    starts, columns, values = parts(matrix)
    first, stop, _ = wanted.indices(len(matrix))
    begin, end = int(starts[first]), int(starts[stop])
    shape = (stop - first, matrix.shape[1])
    return csr(starts[first : stop + 1] - begin, columns[begin:end], values[begin:end], shape)


def row_numbers(matrix: Tensor) -> Tensor:
    """Return the row of every entry of a sparse matrix, of the dtype of its columns."""
    starts, columns, _ = parts(matrix)
    return torch.repeat_interleave(torch.arange(len(matrix), dtype=columns.dtype, device=columns.device), starts.diff())


def to_sparse(ratings: Tensor, mask: Tensor | None) -> Tensor:
    """Return the observed ratings of a dense matrix as torch.sparse_csr, zeros among them included.

    Args:
        ratings: (m, n).
        mask: (m, n), non-zero where observed; None: NaN marks the unobserved ratings.
    """
    m, n = ratings.shape
    step = max(1, BLOCK_ELEMENTS // max(1, n))
    counts, columns, values = [], [], []
    for start in range(0, m, step):
        block = ratings[start : start + step]
        observed = ~block.isnan() if mask is None else mask[start : start + step] != 0
        counts.append(observed.sum(1))
        columns.append(observed.nonzero()[:, 1].to(torch.int32))
        values.append(block[observed])
    starts = torch.zeros(m + 1, dtype=torch.int64, device=ratings.device)
    if not m:
        return csr(starts, starts[:0].int(), ratings.reshape(-1)[:0], ratings.shape)
    torch.cumsum(torch.cat(counts), 0, out=starts[1:])
    dtype = torch.int32 if int(starts[-1]) < 2**31 else torch.int64
    return csr(starts.to(dtype), torch.cat(columns).to(dtype), torch.cat(values), ratings.shape)


def to_dense(ratings: Tensor, mask_dtype: torch.dtype = torch.uint8) -> tuple[Tensor, Tensor]:
    """Return sparse ratings as a dense matrix, 0 where unobserved, and its mask of zeros and ones."""
    _, columns, values = parts(ratings)
    places = row_numbers(ratings).long(), columns.long()
    dense = torch.zeros(ratings.shape, dtype=values.dtype, device=values.device)
    mask = torch.zeros(ratings.shape, dtype=mask_dtype, device=values.device)
    dense[places] = values
    mask[places] = 1
    return dense, mask
