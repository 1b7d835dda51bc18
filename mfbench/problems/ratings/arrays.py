"""Read NumPy's arrays, SciPy's sparse matrices and MatrixMarket: matrices whose places identify users and items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.io
import scipy.sparse

from mfbench.problems.ratings import csr, tables
from mfbench.problems.ratings.columns import ROLES, by_name, by_position, roles_of
from mfbench.problems.ratings.errors import Ambiguous, BadData
from mfbench.problems.ratings.left_out import NAMED, listed, warn
from mfbench.problems.ratings.lines import finite
from mfbench.problems.ratings.packages import arrow
from mfbench.problems.ratings.source import Source
from mfbench.problems.ratings.triplets import Missing, RatingMatrix
from mfbench.wording import counted

STORED = ("csr", "csc", "coo")  # SciPy's formats that tell a stored 0 from a place without a rating


def read(source: Source, columns: Sequence[str] | None, format: str | None, missing: Missing | None) -> RatingMatrix:
    """Return the ratings of a file of arrays.

    Args:
        source: of kind "npy", "npz" or "matrixmarket".
        columns: the columns of users, items and ratings in an array of triplets.
        format: "dense" (every number is a rating), "triplets" (an array of columns) or None.
        missing: the value that stands for no rating.
    """
    if source.kind == "matrixmarket":
        return _matrix_market(source, missing)
    content = np.load(source.seekable(), allow_pickle=False)
    if isinstance(content, np.ndarray):
        return _array(content, source.name, columns, format, missing)
    with content:
        names = list(content)
        if {"format", "shape", "data"} <= set(names):
            return _sparse(_scipy(source), source.name, missing, first=0)
        if columns or {role for role, at in roles_of(names).items() if at} == set(ROLES):
            return _table({name: content[name] for name in names}, source.name, columns, missing)
        if "ratings" not in names:
            raise BadData(f"expected an array 'ratings', got {', '.join(names) or 'none'}")
        shape = content["ratings"].shape
        unread = [name for name in names if name not in ("ratings", "mask") and content[name].shape == shape]
        if unread and "mask" not in names:
            raise BadData(f"expected the mask of 'ratings' as 'mask', got {', '.join(unread)} of the same shape")
        if unread:
            warn(f"{source.name}: {', '.join(unread)} left out, of the same shape as 'ratings'")
        return _dense(content["ratings"], content.get("mask"), source.name, format == "dense", missing)


def _array(
    content: np.ndarray, name: str, columns: Sequence[str] | None, format: str | None, missing: Missing | None
) -> RatingMatrix:
    if content.dtype.names:
        return _table({field: content[field] for field in content.dtype.names}, name, columns, missing)
    if format == "triplets" or columns:
        if content.ndim != 2 or content.shape[1] < 3:
            raise BadData(f"expected triplets, an array of 3 columns or more, got shape {content.shape}")
        numbered = {str(i): content[:, i] for i in range(content.shape[1])}
        return _table(numbered, name, columns or ["1", "2", "3"], missing)
    if format is None and missing is None and _may_be_triplets(content):
        raise Ambiguous(
            f"more than one reading of shape {content.shape}: --format triplets if its columns are user, item, rating, "
            f"--format dense if it is a matrix of {content.shape[1]} items"
        )
    return _dense(content, None, name, format == "dense", missing)


def _may_be_triplets(content: np.ndarray) -> bool:
    """Return whether an array looks like a list of (user, item, rating) or (user, item, rating, time)."""
    if content.ndim != 2 or content.shape[1] not in (3, 4) or len(content) <= content.shape[1]:
        return False
    identifiers = content[:, :2]
    if content.dtype.kind not in "iuf" or not (np.isfinite(identifiers) & (identifiers == np.round(identifiers))).all():
        return False
    return bool((identifiers >= 0).all()) and len(np.unique(identifiers, axis=0)) == len(content)


def _table(
    arrays: Mapping[str, np.ndarray], name: str, columns: Sequence[str] | None, missing: Missing | None
) -> RatingMatrix:
    pa = arrow("columns of ratings")
    names = list(arrays)
    chosen = (by_position(columns, len(names)) if columns else None) or by_name(names, columns)
    picked = [arrays[names[i]] for i in chosen]
    if any(column.ndim != 1 for column in picked) or len({len(column) for column in picked}) > 1:
        shapes = ", ".join(f"{names[i]} {arrays[names[i]].shape}" for i in chosen)
        raise BadData(f"expected three arrays of one dimension and one length, got {shapes}")
    users, items, ratings = (pa.array(np.ascontiguousarray(column)) for column in picked)
    return tables.read(name, [(users, items, ratings)], missing)


def _dense(
    values: np.ndarray, mask: np.ndarray | None, name: str, all_are_ratings: bool, missing: Missing | None
) -> RatingMatrix:
    """Return the ratings of a matrix in which NaN, `mask` or one value says what is missing."""
    for argument, given in (("ratings", values), ("mask", mask)):
        if given is not None and given.dtype.kind not in "biuf":
            raise BadData(f"expected real numbers in {argument!r}, got {given.dtype}")
    if values.ndim != 2:
        raise BadData(f"expected ratings of 2 dimensions, got shape {values.shape}")
    if mask is not None and mask.shape != values.shape:
        raise BadData(f"expected a mask of shape {values.shape} as the ratings, got {mask.shape}")
    if mask is not None and mask.dtype.kind == "f" and not np.isin(mask, (0, 1)).all():
        raise BadData("expected a mask of 0 and 1: a rating file has no weights")
    observed = ~np.isnan(values) if mask is None else mask != 0
    rounded = finite(values)
    is_finite = ~np.isnan(rounded)
    bad = np.argwhere(observed & ~is_finite)
    if len(bad):
        places = listed([f"[{i}, {j}]" for i, j in bad[: NAMED + 1].tolist()])
        warn(f"{name}: {counted(len(bad), 'rating')} not finite in float32, left out: {places}")
    observed &= is_finite
    if missing:
        gone = observed & (rounded == np.float32(missing.value))
        if count := int(np.count_nonzero(gone)):
            warn(f"{name}: {counted(count, 'rating')} of {missing.value:g} left out: {missing.reason}")
        observed &= ~gone
    elif mask is None and not all_are_ratings:
        _refuse_look_alikes(values, observed)
    _require(observed.any())
    m, n = values.shape
    return RatingMatrix(csr.from_dense(values, observed), list(range(m)), list(range(n)))


def _refuse_look_alikes(values: np.ndarray, observed: np.ndarray) -> None:
    """Refuse a matrix without a mask in which one value may stand for missing ratings; NaN does in any case."""
    if values.dtype.kind != "b":
        csr.refuse_sentinels(values[observed].astype(np.float32))
    zeros = values.size - int(np.count_nonzero(values))
    if 0 < zeros < values.size and observed.all():
        raise csr.sentinel_or_rating(f"{counted(zeros, 'place')} of 0 in a matrix without NaN or a mask", "0")


def _scipy(source: Source) -> Any:
    matrix = scipy.sparse.load_npz(source.seekable())
    if matrix.format not in STORED:
        raise BadData(
            f"SciPy's format {matrix.format!r} does not tell a rating of 0 from none; expected {', '.join(STORED)}"
        )
    return matrix


def _matrix_market(source: Source, missing: Missing | None) -> RatingMatrix:
    words = source.stream.peek(128).split(b"\n")[0].decode("latin-1").lower().split()
    if {"pattern", "complex"} & set(words):
        raise BadData(f"expected ratings, got a matrix of {'complex numbers' if 'complex' in words else 'no values'}")
    matrix = scipy.io.mmread(source.seekable(), spmatrix=False)
    if isinstance(matrix, np.ndarray):
        read = _dense(matrix, None, source.name, False, missing)
        return read._replace(users=_numbered(len(read.users), 1), items=_numbered(len(read.items), 1))
    return _sparse(matrix, source.name, missing, first=1)


def _sparse(matrix: Any, name: str, missing: Missing | None, first: int) -> RatingMatrix:
    """Return the stored entries of a sparse matrix; places are numbered from `first`."""
    if len(matrix.shape) != 2 or matrix.dtype.kind not in "biuf":
        raise BadData(f"expected a matrix of real numbers, got {matrix.dtype} of shape {matrix.shape}")
    entries = matrix.tocoo()
    rows, columns, values = entries.row, entries.col, entries.data
    rounded = finite(values)
    good = ~np.isnan(rounded)
    if not good.all():
        at = np.flatnonzero(~good)
        places = listed([f"[{rows[i] + first}, {columns[i] + first}]" for i in at[: NAMED + 1]])
        warn(f"{name}: {counted(len(at), 'rating')} not finite in float32, left out: {places}")
    if missing:
        gone = rounded == np.float32(missing.value)
        if count := int(np.count_nonzero(gone)):
            warn(f"{name}: {counted(count, 'rating')} of {missing.value:g} left out: {missing.reason}")
        good &= ~gone
    if not good.all():
        rows, columns, rounded = rows[good], columns[good], rounded[good]
    _require(len(rounded))
    if not missing:
        csr.refuse_sentinels(rounded)
    m, n = matrix.shape
    return RatingMatrix(csr.build([rows, columns, rounded], (m, n), name), _numbered(m, first), _numbered(n, first))


def _numbered(count: int, first: int) -> list[int]:
    return list(range(first, first + count))


def _require(found: object) -> None:
    if not found:
        raise BadData("expected ratings, found none")
