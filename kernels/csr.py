"""Sparse ratings as compressed rows (CSR): from PyTorch's sparse layouts, checked, with rising columns in every row."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch._C import _DisableFuncTorch

from kernels.decoding import CHUNK_ELEMENTS
from kernels.problem import Observations
from kernels.unchanged import Unchanged

LAYOUTS = (torch.sparse_csr, torch.sparse_coo, torch.sparse_csc)
LARGEST_UINT16, LARGEST_INT32 = (1 << 16) - 1, (1 << 31) - 1

_checked: Unchanged[int] = Unchanged()  # number of items, by columns whose order was checked and row pointers


def observations_of_csr(ratings: Tensor) -> Observations:
    """Return a `torch.sparse_csr` tensor as the backends receive it. Nothing is read.

    Raises:
        TypeError: it is sparse in another layout.
        ValueError: it is not a matrix of numbers.
    """
    if ratings.layout is not torch.sparse_csr:
        hint = "; encode_ratings accepts it" if ratings.layout in (torch.sparse_coo, torch.sparse_csc) else ""
        raise TypeError(f"ratings: expected a dense tensor or torch.sparse_csr, got {ratings.layout}{hint}")
    _check_matrix(ratings)
    with _DisableFuncTorch():  # its transforms cannot take a sparse tensor apart
        values, rows, columns = ratings.values(), ratings.crow_indices(), ratings.col_indices()
    if not values.requires_grad:  # which the step refuses
        values = values.detach()  # the compiler cannot take a view of a sparse tensor
    return Observations(values, rows=rows, columns=columns, items=ratings.shape[1])


def compress(ratings: Tensor) -> Observations:
    """Return a sparse matrix of any of `LAYOUTS` with rising columns in every row. No entry is summed or dropped.

    Raises:
        ValueError: it is not a matrix, or an index is out of range or repeated; the message names the row.
    """
    _check_matrix(ratings)
    m, n = ratings.shape
    if ratings.layout is torch.sparse_csr:
        return with_rising_columns(observations_of_csr(ratings))
    if ratings.layout is torch.sparse_coo:
        users, items = ratings._indices()
        return _from_triplets(users, items, ratings._values(), m, n)
    pointers, users = ratings.ccol_indices().long(), ratings.row_indices().long()
    _check_pointers(pointers, len(users), "column")
    return _from_triplets(users, _expand(pointers), ratings.values(), m, n)


def compress_dense(ratings: Tensor, observed: Tensor) -> Observations:
    """Return the observed entries of a matrix.

    Args:
        ratings, observed: (m, n); `observed` is bool.
    """
    m, n = ratings.shape
    rows = torch.zeros(m + 1, dtype=torch.int64, device=ratings.device)
    torch.cumsum(observed.sum(1), 0, out=rows[1:])
    step = max(1, CHUNK_ELEMENTS // max(1, n))
    columns = [part.nonzero()[:, 1].to(index_dtype(n)) for part in observed.split(step)]
    return Observations(ratings[observed], rows=rows, columns=torch.cat(columns), items=n)


def index_dtype(n: int) -> torch.dtype:
    """Return the narrowest dtype of column indices below n."""
    if n - 1 <= LARGEST_UINT16:
        return torch.uint16
    return torch.int32 if n - 1 <= LARGEST_INT32 else torch.int64


def with_rising_columns(observations: Observations, rise: Callable[[Observations], bool] | None = None) -> Observations:
    """Return the same entries with rising columns in every row.

    Tensors that passed before and have not changed since are not read again: those of encoded ratings. The index
    tensors of a `torch.sparse_csr` are other objects at every access, and are read every time.

    Args:
        rise: returns whether the indices are valid and rise in every row; None: PyTorch finds out.

    Raises:
        ValueError: the indices are not valid; the message names the row.
    """
    rows, columns = indices_of(observations)
    if _checked.get((columns, rows)) == observations.items:
        return observations
    if (rise is not None and rise(observations)) or columns_rise(observations):
        _checked.keep((columns, rows), observations.items)
        return observations
    return _sort_rows(observations)


def entries_for_a_kernel(observations: Observations) -> Observations:
    """Return sparse ratings checked, with rising columns in every row, in contiguous tensors.

    Raises:
        ValueError: the indices are not valid; the message names the row.
    """
    entries = with_rising_columns(observations)
    rows, columns = indices_of(entries)
    return entries._replace(ratings=entries.ratings.contiguous(), rows=rows.contiguous(), columns=columns.contiguous())


def columns_rise(observations: Observations) -> bool:
    """Return whether the columns of every row rise.

    Raises:
        ValueError: row pointers do not fit the entries, or a column is out of range; the message names the row.
    """
    rows, columns = indices_of(observations)
    _check_pointers(rows, len(columns), "row")
    return all(_chunk_rises(rows, chunk, start, observations.items) for start, chunk in _chunks(columns))


def indices_of(observations: Observations) -> tuple[Tensor, Tensor]:
    """Return row pointers and columns of sparse ratings."""
    rows, columns = observations.rows, observations.columns
    assert rows is not None  # the ratings are sparse
    assert columns is not None
    return rows, columns


def user_of_entries(rows: Tensor, start: int, stop: int) -> Tensor:
    """Return the row of each of the entries from start to stop, int64."""
    entries = torch.arange(start, stop, device=rows.device)
    return torch.searchsorted(rows, entries.to(rows.dtype), right=True) - 1


def _check_matrix(ratings: Tensor) -> None:
    if ratings.dim() != 2 or (ratings.layout is torch.sparse_coo and ratings.sparse_dim() != 2):
        raise ValueError(f"ratings: expected a sparse matrix of numbers, got shape {tuple(ratings.shape)}")


def _expand(pointers: Tensor) -> Tensor:
    return torch.repeat_interleave(pointers.diff())


def _check_pointers(pointers: Tensor, entries: int, what: str) -> None:
    """Raise ValueError where row (or column) pointers do not rise from 0 to the number of entries."""
    begin, end = pointers[:-1], pointers[1:]
    wrong = (begin > end) | (begin < 0) | (end > entries)
    if len(wrong):
        wrong[0] |= begin[0] != 0
        wrong[-1] |= end[-1] != entries
    if wrong.any():
        at = int(wrong.nonzero()[0])
        raise ValueError(
            f"ratings: expected {what} pointers that rise from 0 to {entries}, the number of stored ratings; "
            f"got {int(begin[at])} to {int(end[at])} for {what} {at}"
        )
    if not len(wrong) and (entries or not torch.equal(pointers, pointers.new_zeros(1))):
        message = f"ratings: expected the {what} pointer 0 alone, and no stored rating"
        raise ValueError(f"{message}; got {pointers.tolist()}, and {entries}")


def _chunks(columns: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield some entries at a time, the last of the chunk before first: where they start, and their columns."""
    for start in range(0, len(columns), CHUNK_ELEMENTS):
        before = max(0, start - 1)
        yield before, columns[before : start + CHUNK_ELEMENTS].long()


def _chunk_rises(rows: Tensor, columns: Tensor, start: int, n: int) -> bool:
    """Return whether the columns of a chunk rise where a row goes on.

    Raises:
        ValueError: one is out of range.
    """
    wrong = (columns < 0) | (columns >= n)
    if wrong.any():
        at = int(wrong.nonzero()[0])
        row = int(user_of_entries(rows, start + at, start + at + 1))
        raise ValueError(f"ratings: expected columns from 0 to {n - 1}, got {int(columns[at])} in row {row}")
    falls = columns[1:] <= columns[:-1]
    first, last = torch.searchsorted(rows, rows.new_tensor([start + 1, start + len(columns)]))
    falls[rows[first:last].long() - start - 1] = False  # the first entry of a row may be below the one before
    return not falls.any()


def _sort_rows(observations: Observations) -> Observations:
    rows, columns = indices_of(observations)
    m, n = observations.shape
    return _from_triplets(_expand(rows.long()), columns.long(), observations.ratings, m, n, observations)


def _from_triplets(
    users: Tensor, items: Tensor, values: Tensor, m: int, n: int, like: Observations | None = None
) -> Observations:
    """Return triplets in compressed rows.

    Args:
        like: what else to keep, such as the levels of codes.

    Raises:
        ValueError: an index is out of range or repeated.
    """
    for name, indices, size in (("rows", users, m), ("columns", items, n)):
        wrong = (indices < 0) | (indices >= size)
        if wrong.any():
            at = int(wrong.nonzero()[0])
            where = f" in row {int(users[at])}" if name == "columns" else ""
            raise ValueError(f"ratings: expected {name} from 0 to {size - 1}, got {int(indices[at])}{where}")
    order = items.argsort(stable=True)
    order = order[users[order].argsort(stable=True)]
    users, items = users[order], items[order]
    repeated = (users[1:] == users[:-1]) & (items[1:] == items[:-1])
    if repeated.any():
        at = int(repeated.nonzero()[0])
        raise ValueError(
            f"ratings: expected every column once in a row, got {int(items[at])} twice in row {int(users[at])}"
        )
    rows = torch.zeros(m + 1, dtype=torch.int64, device=users.device)
    torch.cumsum(torch.bincount(users, minlength=m), 0, out=rows[1:])
    result = Observations(values[order]) if like is None else like._replace(ratings=values[order])
    return result._replace(rows=rows, columns=items.to(index_dtype(n)), items=n)
