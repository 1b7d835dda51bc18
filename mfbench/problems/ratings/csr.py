"""Build a sparse rating matrix from coordinates, the last of several ratings for a place kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse

from mfbench.problems.ratings.errors import Ambiguous
from mfbench.problems.ratings.left_out import warn
from mfbench.wording import counted

if TYPE_CHECKING:
    from torch import Tensor

PART = 1 << 18  # ratings compared together, so that the comparison needs no memory to speak of
# Values that stand for "no rating" in known data sets, and the range of the ratings beside them: Jester's 99 and
# MyAnimeList's -1 (seen, not rated)
SENTINELS = {99.0: (-10.0, 10.0), -1.0: (0.0, 10.0)}
# Values that programs write for "missing": runs of nines, the ends of integer types, netCDF's and NumPy's fill values
FILLS = np.array(
    [-99, 999, -999, 9999, -9999, 99999, -99999, 127, -128, 255, 32767, -32768, 65535, 2**31 - 1, -(2**31), 999999,
     1e20, -1e20, 9.96921e36, 3.4028235e38, -3.4028235e38], np.float32,
)  # fmt: skip
FAR = 4  # widths of the range of all other ratings between it and such a value


def build(coordinates: list[np.ndarray], shape: tuple[int, int], name: str) -> Tensor:
    """Return a float32 torch.sparse_csr matrix with ascending columns in each row.

    Two stable counting sorts, by column and then by row, keep the ratings of one place in the order of the file.

    Args:
        coordinates: (count,) integers, rows; the same, columns; (count,) float32, finite. Emptied, so that the memory
            is free for the result.
        shape: users and items.
        name: of the file, for the warning about repeated places.
    """
    rows, columns, values = coordinates
    coordinates.clear()
    entries = scipy.sparse.coo_array((values, (rows, columns)), shape=shape)
    entries.has_canonical_format = True  # or SciPy adds up the ratings of one place
    in_order = _ascends(rows, columns)
    del rows, columns, values
    if in_order:  # one sort puts rows where they are
        by_row = entries.tocsr()
    else:
        by_column = entries.tocsc()
        by_column.has_canonical_format = True
        del entries
        by_row = by_column.tocsr()
        del by_column
    starts, columns, values = by_row.indptr, by_row.indices, by_row.data
    last = np.append(columns[1:] != columns[:-1], True)
    last[starts[1:][np.diff(starts) > 0] - 1] = True  # the next row may begin with the column that this one ends with
    repeated = np.flatnonzero(~last)
    if len(repeated):
        warn(f"{name}: {counted(len(repeated), 'rating')} left out, given again further down")
        starts = starts - np.searchsorted(repeated, starts).astype(starts.dtype)
        columns, values = columns[last], values[last]
    return tensor(starts, columns, values, shape)


def _ascends(rows: np.ndarray, columns: np.ndarray) -> bool:
    """Return whether places come in the order of rows and columns."""
    for start in range(0, len(rows) - 1, PART):
        row, column = rows[start : start + PART + 1], columns[start : start + PART + 1]
        later = (row[1:] > row[:-1]) | ((row[1:] == row[:-1]) & (column[1:] >= column[:-1]))
        if not later.all():
            return False
    return True


def from_dense(values: np.ndarray, observed: np.ndarray) -> Tensor:
    """Return the observed places of a dense matrix as a float32 torch.sparse_csr matrix."""
    starts = np.concatenate([[0], np.cumsum(np.count_nonzero(observed, axis=1))])
    columns = np.broadcast_to(np.arange(values.shape[1], dtype=np.int32), values.shape)[observed]
    width = np.int32 if starts[-1] < 2**31 else np.int64
    return tensor(starts.astype(width), columns.astype(width), values[observed].astype(np.float32), values.shape)


def tensor(starts: np.ndarray, columns: np.ndarray, values: np.ndarray, shape: tuple[int, int]) -> Tensor:
    """Return the three arrays of a CSR matrix as a tensor that shares their memory."""
    import torch  # slow to import, and not needed to list the data sets

    from mfbench.problems.matrices import csr

    return csr(torch.from_numpy(starts), torch.from_numpy(columns), torch.from_numpy(values), shape)


def refuse_sentinels(values: np.ndarray) -> None:
    """Refuse ratings among which a value looks like a mark for missing ones.

    Raises:
        Ambiguous: the value, the two readings and how to choose one.
    """
    for sentinel, (low, high) in SENTINELS.items():
        marked = values == sentinel
        count = int(np.count_nonzero(marked))
        if not 0 < count < len(values):
            continue
        others = values[~marked]
        if low <= others.min() < others.max() <= high and not (sentinel == -1 and others.max() <= 1):
            raise _beside(sentinel, count, others)
    for end in (values.max(), values.min()) if len(values) else ():
        if end in FILLS:
            marked = values == end
            others = values[~marked]
            width = np.ptp(others) if len(others) else 0
            if 0 < FAR * width < np.abs(end - others).min():
                raise _beside(float(end), int(np.count_nonzero(marked)), others)


def _beside(value: float, count: int, others: np.ndarray) -> Ambiguous:
    seen = f"{counted(count, 'value')} of {value:g} beside ratings from {others.min():g} to {others.max():g}"
    return sentinel_or_rating(seen, f"{value:.9g}")


def sentinel_or_rating(seen: str, value: str) -> Ambiguous:
    """Return the error for a value that may be a rating or may mean that there is none."""
    return Ambiguous(
        f"more than one reading of {seen}: --format missing={value} if it marks missing ratings, "
        f"--format missing=nan if it is a rating"
    )
