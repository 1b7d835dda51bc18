"""Collect ratings one by one into a sparse matrix, with the identifiers of its rows and columns."""

from __future__ import annotations

import contextlib
import ctypes
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mfbench.problems.ratings import csr
from mfbench.problems.ratings.errors import BadData
from mfbench.problems.ratings.left_out import warn
from mfbench.problems.ratings.packages import arrow
from mfbench.wording import counted

if TYPE_CHECKING:
    from torch import Tensor

WHOLE_NUMBER = r"^(0|-?[1-9][0-9]*)$"  # as Python writes it: 007 and 7 are two identifiers
TRIMMED = " \t\ufeff"  # characters cut off both ends of an identifier
CONTROL = r"[\x00-\x1f]"  # characters of a damaged line


class RatingMatrix(NamedTuple):
    """Ratings as a sparse matrix.

    Identifiers are integers in the order of their values where all of them are written as integers, otherwise text in
    the order of its code points.
    """

    ratings: Tensor  # (m, n) float32, torch.sparse_csr; columns ascend in each row; a stored 0 is a rating of 0
    users: list[Any]  # m identifiers, of the rows
    items: list[Any]  # n identifiers, of the columns


class Missing(NamedTuple):
    """A value that stands for a missing rating."""

    value: float
    reason: str


class Coded(NamedTuple):
    """Identifiers of some ratings, stored compactly."""

    distinct: Any  # pyarrow array
    codes: np.ndarray  # (count,) positions in it, uint16 where they fit

    @classmethod
    def of(cls, column: Any) -> Coded:
        """Return a dictionary array as its distinct identifiers and codes."""
        fits = len(column.dictionary) <= np.iinfo(np.uint16).max
        return cls(column.dictionary, column.indices.to_numpy().astype(np.uint16 if fits else np.int32))


class Triplets:
    """Ratings in the order of a file."""

    def __init__(self, name: str, missing: Missing | None = None) -> None:
        self._name, self._missing = name, missing
        self._users: list[Coded] = []
        self._items: list[Coded] = []
        self._values: list[np.ndarray] = []
        self._left_out = 0

    def add(self, users: Any, items: Any, values: np.ndarray) -> None:
        """Add ratings: two dictionary arrays of pyarrow without unused identifiers, and (count,) finite float32."""
        if self._missing and (gone := values == self._missing.value).any():
            self._left_out += int(gone.sum())
            users, items, values = only(users, ~gone), only(items, ~gone), values[~gone]
        if len(values):
            self._users.append(Coded.of(users))
            self._items.append(Coded.of(items))
            self._values.append(values)

    def matrix(self, check_sentinels: bool = True) -> RatingMatrix:
        """Return all ratings as a matrix of those users and items that have one; empties this object.

        Raises:
            BadData: there is no rating, or one value looks like a mark for missing ratings.
        """
        if self._missing and self._left_out:
            value, reason = self._missing
            warn(f"{self._name}: {counted(self._left_out, 'rating')} of {value:g} left out: {reason}")
        if not self._values:
            raise BadData("expected ratings, found none")
        _return_free_memory()
        values = _joined(self._values)
        if check_sentinels and not self._missing:
            csr.refuse_sentinels(values)
        users, rows = _ranked(self._users)
        items, columns = _ranked(self._items)
        coordinates = [rows, columns, values]
        del rows, columns, values
        return RatingMatrix(csr.build(coordinates, (len(users), len(items)), self._name), users, items)


def _joined(pieces: list[np.ndarray]) -> np.ndarray:
    joined = np.concatenate(pieces)
    pieces.clear()
    return joined


def _return_free_memory() -> None:
    """Return what the parsing threads freed to the system; glibc would keep about as much as the result takes."""
    arrow("rating files").default_memory_pool().release_unused()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def only(column: Any, kept: np.ndarray) -> Any:
    """Return the rows of a dictionary array where `kept`, without identifiers that no longer occur."""
    pa = arrow("rating files")
    return column.dictionary_decode().filter(pa.array(kept)).dictionary_encode()


def _ranked(pieces: list[Coded]) -> tuple[list[Any], np.ndarray]:
    """Return the distinct identifiers in order, and (count,) int32 positions among them; empties `pieces`."""
    pa = arrow("rating files")
    together = pa.concat_arrays([piece.distinct for piece in pieces]).dictionary_encode()
    identifiers = _plain(together.dictionary, pa)
    ordered = sorted(set(identifiers))
    position = {identifier: i for i, identifier in enumerate(ordered)}
    ranks = np.array([position[identifier] for identifier in identifiers], dtype=np.int32)
    ranks = ranks[together.indices.to_numpy()]  # of the pieces' dictionaries, one after another
    placed = np.empty(sum(len(codes) for _, codes in pieces), dtype=np.int32)
    start = first = 0
    for distinct, codes in pieces:
        end, last = start + len(codes), first + len(distinct)
        np.take(ranks[first:last], codes, out=placed[start:end], mode="clip")
        start, first = end, last
    pieces.clear()
    _return_free_memory()
    return ordered, placed


def _plain(distinct: Any, pa: Any) -> list[Any]:
    """Return identifiers as Python has them: integers, or text that is UTF-8 or else Latin-1 in the whole column."""
    if not pa.types.is_binary(distinct.type):
        numbers: list[int] = distinct.to_pylist()
        return numbers
    try:
        text = distinct.cast(pa.string())
    except pa.ArrowInvalid:
        return [identifier.decode("latin-1").strip(TRIMMED) for identifier in distinct.to_pylist()]
    text = pa.compute.utf8_trim(text, TRIMMED)
    if pa.compute.all(pa.compute.match_substring_regex(text, WHOLE_NUMBER)).as_py():
        return [int(identifier) for identifier in text.to_pylist()]
    names: list[str] = text.to_pylist()
    return names


def encoded(column: Any) -> tuple[Any, np.ndarray | None]:
    """Return a binary column dictionary-encoded, and where its identifiers are whole; None where all are.

    An identifier that is empty or has control characters in it is a sign of a damaged line.
    """
    pa = arrow("rating files of text")
    column = column.dictionary_encode()
    text = column.dictionary.view(pa.string())
    bad = pa.compute.equal(pa.compute.binary_length(pa.compute.ascii_trim(text, " \t")), 0)
    if (np.frombuffer(text.buffers()[2] or b"", np.uint8) < ord(" ")).any():
        bad = pa.compute.or_(bad, pa.compute.match_substring_regex(text, CONTROL))
    bad = bad.to_numpy(zero_copy_only=False)
    if not bad.any():
        return column, None
    return column, ~bad[column.indices.to_numpy()]
