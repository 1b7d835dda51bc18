"""Dense and sparse rating matrices: convert one into the other, take them apart, slice their rows."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

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
        # PyTorch before 2.13 says this whatever `check_invariants` is
        warnings.filterwarnings("ignore", "Sparse invariant checks are implicitly disabled")
        return torch.sparse_csr_tensor(
            starts, columns, values, tuple(shape), device=values.device, check_invariants=False
        )


def parts(tensor: Tensor) -> tuple[Tensor, ...]:
    """Return the strided tensors that hold a tensor: itself, or row starts, columns and values."""
    if not is_sparse(tensor):
        return (tensor,)
    return tensor.crow_indices(), tensor.col_indices(), tensor.values()


def with_parts(tensor: Tensor, changed: Sequence[Tensor]) -> Tensor:
    """Return a tensor of the same layout and shape made of other parts, in the order of `parts`."""
    if not is_sparse(tensor):
        return changed[0]
    starts, columns, values = changed
    return csr(starts, columns, values, tensor.shape)


def with_values(matrix: Tensor, values: Tensor) -> Tensor:
    """Return a sparse matrix with the same places and other values."""
    return csr(matrix.crow_indices(), matrix.col_indices(), values, matrix.shape)


def size_in_bytes(tensor: Tensor) -> int:
    """Return the bytes of all parts together."""
    return sum(part.nbytes for part in parts(tensor))


def counts(ratings: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the number of observed ratings in each row, (m,), and in each column, (n,).

    Args:
        ratings: (m, n), dense or torch.sparse_csr.
        mask: (m, n), non-zero where observed; None: NaN marks the unobserved ones of a dense matrix.
    """
    if is_sparse(ratings):
        starts, columns, _ = parts(ratings)
        return starts.diff().long(), torch.bincount(columns, minlength=ratings.shape[1])
    observed = ~ratings.isnan() if mask is None else mask
    return observed.count_nonzero(dim=1), observed.count_nonzero(dim=0)


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


def split(matrix: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Return a sparse matrix without the entries at the positions `chosen`, and one of these alone."""
    starts, columns, values = parts(matrix)
    taken = torch.zeros(len(values), dtype=torch.bool, device=values.device)
    taken[chosen] = True

    def only(kept: Tensor) -> Tensor:
        before = torch.cat([starts.new_zeros(1), kept.cumsum(0, dtype=starts.dtype)])
        return csr(before[starts.long()], columns[kept], values[kept], matrix.shape)

    return only(~taken), only(taken)


def to_sparse(ratings: Tensor, mask: Tensor | None) -> Tensor:
    """Return the observed ratings of a dense matrix as torch.sparse_csr, zeros among them included.

    Args:
        ratings: (m, n).
        mask: (m, n), non-zero where observed; None: NaN marks the unobserved ratings.
    """
    m, n = ratings.shape
    step = max(1, BLOCK_ELEMENTS // max(1, n))
    blocks = (slice(start, start + step) for start in range(0, m, step))
    return stacked(((ratings[users], None if mask is None else mask[users]) for users in blocks), (m, n), ratings)


def stacked(
    blocks: Iterable[tuple[Tensor, Tensor | None]], shape: tuple[int, int], like: Tensor | None = None
) -> Tensor:
    """Return the observed ratings of a dense matrix that comes in blocks of rows as torch.sparse_csr.

    Args:
        blocks: ratings and mask, as `to_sparse` takes them.
        shape: of all blocks together.
        like: gives dtype and device where there is no block.
    """
    device = torch.device("cpu") if like is None else like.device
    counts, columns = (
        [torch.zeros(1, dtype=torch.int64, device=device)],
        [torch.zeros(0, dtype=torch.int32, device=device)],
    )
    values = [] if like is None else [like.new_zeros(0)]
    for ratings, mask in blocks:
        observed = ~ratings.isnan() if mask is None else mask != 0
        counts.append(observed.sum(1))
        columns.append(observed.nonzero()[:, 1].to(torch.int32))
        values.append(ratings[observed])
    starts = torch.cat(counts).cumsum(0)
    dtype = torch.int32 if int(starts[-1]) < 2**31 else torch.int64
    return csr(
        starts.to(dtype), torch.cat(columns).to(dtype), torch.cat(values or [torch.zeros(0, device=device)]), shape
    )


def to_dense(ratings: Tensor, mask_dtype: torch.dtype = torch.uint8) -> tuple[Tensor, Tensor]:
    """Return sparse ratings as a dense matrix, 0 where unobserved, and its mask of zeros and ones."""
    _, columns, values = parts(ratings)
    places = row_numbers(ratings).long(), columns.long()
    dense = torch.zeros(ratings.shape, dtype=values.dtype, device=values.device)
    mask = torch.zeros(ratings.shape, dtype=mask_dtype, device=values.device)
    dense[places] = values
    mask[places] = 1
    return dense, mask
