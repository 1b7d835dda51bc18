"""Read Parquet: columns by their names, a part at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from mfbench.problems.ratings import tables
from mfbench.problems.ratings.columns import by_name, by_position, shown
from mfbench.problems.ratings.errors import BadData
from mfbench.problems.ratings.packages import arrow
from mfbench.problems.ratings.source import Source
from mfbench.problems.ratings.triplets import Missing, RatingMatrix

ROWS = 1 << 18  # read together


def read(source: Source, columns: Sequence[str] | None, missing: Missing | None) -> RatingMatrix:
    """Return the ratings of a Parquet file."""
    pa = arrow("Parquet")
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(source.seekable())
    names = file.schema_arrow.names
    chosen = (by_position(columns, len(names)) if columns and not set(columns) <= set(names) else None) or by_name(
        names, columns
    )
    wanted = [names[i] for i in chosen]
    if any(names.count(name) > 1 for name in wanted):
        raise BadData(f"more than one column of a name among {shown(names)}")

    def batches() -> Iterator[tuple[Any, Any, Any]]:
        for batch in file.iter_batches(ROWS, columns=wanted):
            yield batch.column(wanted[0]), batch.column(wanted[1]), batch.column(wanted[2])

    try:
        return tables.read(source.name, batches(), missing)
    except pa.ArrowInvalid as error:
        raise BadData(f"cannot read: {error}") from None
