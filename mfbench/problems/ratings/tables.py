"""Read columns that have types: Parquet, structured arrays, arrays of one length by name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from mfbench.problems.ratings import lines
from mfbench.problems.ratings.errors import BadData
from mfbench.problems.ratings.left_out import NAMED, listed, warn
from mfbench.problems.ratings.packages import arrow
from mfbench.problems.ratings.triplets import Missing, RatingMatrix, Triplets, encoded, only
from mfbench.wording import counted

EXACT = 2**53  # from here up, float64 no longer tells whole numbers apart


def read(name: str, batches: Iterable[tuple[Any, Any, Any]], missing: Missing | None) -> RatingMatrix:
    """Return the ratings of columns of users, items and ratings, batch by batch.

    Args:
        name: of the file.
        batches: arrays of pyarrow, three of one length.
        missing: the rating that stands for none.
    """
    pa = arrow("columns of ratings")
    triplets = Triplets(name, missing)
    start = left_out = 0
    named: list[str] = []
    for user_column, item_column, rating_column in batches:
        values = _ratings(rating_column, pa)
        good = ~np.isnan(values)
        ids = []
        for column, role in ((user_column, "user"), (item_column, "item")):
            column = _identifiers(column, role, pa)
            good &= column.is_valid().to_numpy(zero_copy_only=False)
            ids.append(column)
        coded = []
        for column in ids:
            if pa.types.is_binary(column.type):
                code, whole = encoded(column.fill_null(b""))
                good &= True if whole is None else whole
            else:
                code = column.fill_null(0).dictionary_encode()
            coded.append(code)
        if not good.all():
            bad = np.flatnonzero(~good)
            coded, values = [only(code, good) for code in coded], values[good]
            named += [str(start + row) for row in bad[: NAMED + 1 - len(named)].tolist()]
            left_out += len(bad)
        triplets.add(coded[0], coded[1], values)
        start += len(good)
    if left_out:
        warn(
            f"{name}: {counted(left_out, 'row')} left out, without a user, an item or a rating that is finite in "
            f"float32: {listed(named)} (the first row is 0)"
        )
    return triplets.matrix()


def _ratings(column: Any, pa: Any) -> np.ndarray:
    """Return ratings as float32, NaN where there is none."""
    column = _decoded(column, pa)
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return lines.numbers(column.cast(pa.binary()).fill_null(b""))
    types = pa.types
    if not any(test(kind) for test in (types.is_integer, types.is_floating, types.is_decimal, types.is_null)):
        raise BadData(f"expected numbers as ratings, got a column of {kind}")
    return lines.finite(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))


def _identifiers(column: Any, role: str, pa: Any) -> Any:
    """Return identifiers as int64 or binary."""
    column = _decoded(column, pa)
    kind = column.type
    if pa.types.is_nested(kind) or pa.types.is_boolean(kind):
        raise BadData(f"expected text or numbers as {role}s, got a column of {kind}")
    if pa.types.is_integer(kind):
        return column.cast(pa.string()).cast(pa.binary()) if kind == pa.uint64() else column.cast(pa.int64())
    if pa.types.is_floating(kind):
        return _from_floats(column.cast(pa.float64()), role, pa).cast(pa.binary())
    return column.cast(pa.binary()) if _is_text(kind, pa) else column.cast(pa.string()).cast(pa.binary())


def _is_text(kind: Any, pa: Any) -> bool:
    types = pa.types
    return any(test(kind) for test in (types.is_string, types.is_large_string, types.is_string_view,
                                       types.is_binary, types.is_large_binary, types.is_binary_view))  # fmt: skip


def _from_floats(column: Any, role: str, pa: Any) -> Any:
    """Return identifiers that a missing one turned into floats as text: whole numbers without a point."""
    column = pa.compute.if_else(pa.compute.is_finite(column), column, None)
    values = column.fill_null(0).to_numpy()
    if (np.abs(values) >= EXACT).any():
        raise BadData(f"{role}s as {column.type} of 2**53 or more: their last digits are lost; write integers or text")
    whole = np.round(values)
    as_integers = pa.array(whole.astype(np.int64)).cast(pa.string())
    text = pa.compute.if_else(pa.array(whole == values), as_integers, column.cast(pa.string()))
    return pa.compute.if_else(column.is_valid(), text, None)


def _decoded(column: Any, pa: Any) -> Any:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
