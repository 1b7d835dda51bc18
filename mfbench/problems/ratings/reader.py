"""Pick the reader for a file by its content and by the format that the user names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mfbench.errors import UsageError
from mfbench.problems.pipes import shown
from mfbench.problems.ratings import arrays, jester, netflix, parquet, text
from mfbench.problems.ratings.columns import parse as parse_columns
from mfbench.problems.ratings.errors import BadData
from mfbench.problems.ratings.layout import SEPARATORS
from mfbench.problems.ratings.source import DAMAGED, Source, opened
from mfbench.problems.ratings.triplets import Missing, RatingMatrix
from mfbench.wording import one_of

LAYOUTS = ("netflix", "jester", "libmf", "book-crossing", *SEPARATORS)  # of text
ARRAYS = ("dense", "triplets")
FORMATS = (*LAYOUTS, *ARRAYS, "missing=VALUE")


def load_ratings(
    file: str | Path, columns: str | Sequence[str] | None = None, format: str | None = None
) -> RatingMatrix:
    """Read the ratings of a file, a pipe or a member of a zip archive (`archive.zip/member`), in one pass.

    docs/data.md lists the formats, how each is recognised and what is left out; a `DataWarning` counts and names it.

    Args:
        file: its path.
        columns: the columns of users, items and ratings, where their names do not tell: three names of the header,
            three numbers from 1, or what each column holds, as in "item,user,_,rating".
        format: one of `FORMATS`, where the content does not tell. `missing=VALUE` leaves out that value; `missing=nan`
            says that every number is a rating.

    Raises:
        UsageError: the file cannot be read, has no rating, or can be read in more than one way; the message lists them.
        DataUnavailable: the format needs a package that is not installed.
    """
    path, name = Path(file), shown(str(file))
    chosen = parse_columns(columns)
    missing = _missing(format)
    try:
        with opened(path) as source:
            return _read(source, chosen, None if missing else format, missing)
    except BadData as error:
        raise UsageError(f"{name}: {error}", code=error.code, argument=error.argument) from None
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"cannot read {name}: {reason}", code="unreadable-file", argument="data") from None
    except MemoryError:
        message = f"{name}: its ratings do not fit into memory"
        raise UsageError(message, code="data-too-large", argument="data") from None
    except DAMAGED as error:
        reason = str(error) or type(error).__name__
        raise UsageError(f"cannot read {name}: {reason}", code="unreadable-file", argument="data") from None


def _missing(format: str | None) -> Missing | None:
    if format is None or format in FORMATS[:-1]:
        return None
    if format.startswith("missing="):
        try:
            return Missing(float(format.removeprefix("missing=")), f"--format {format}")
        except ValueError:
            message = f"expected a number after missing=, got {format!r}"
            raise UsageError(message, code="bad-value", argument="format") from None
    raise UsageError(one_of(FORMATS, format), code="bad-value", argument="format")


def _read(source: Source, columns: list[str] | None, format: str | None, missing: Missing | None) -> RatingMatrix:
    if source.kind == "text":
        if format in ARRAYS:
            raise BadData(f"{format} is a form of NumPy arrays, and this is text", "format")
        if format == "jester":
            return jester.read(source)
        if format == "netflix" or (format is None and netflix.recognized(source.stream)):
            return netflix.read(source, missing)
        return text.read(source, columns, format, missing)
    if format in LAYOUTS and not (format == "jester" and source.kind in ("npy", "npz")):
        raise BadData(f"{format} is a form of text, and this is {source.kind}", "format")
    if format in ARRAYS and source.kind not in ("npy", "npz"):
        raise BadData(f"{format} is a form of NumPy arrays, and this is {source.kind}", "format")
    if source.kind == "parquet":
        return parquet.read(source, columns, missing)
    if format == "jester":
        missing = jester.MISSING
    return arrays.read(source, columns, format, missing)
