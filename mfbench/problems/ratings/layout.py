"""Recognise how a text file of ratings is laid out, from its first lines and what the user says of it."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain, pairwise
from typing import NamedTuple

from mfbench.problems.ratings.columns import (
    Columns,
    by_name,
    by_position,
    normalized,
    roles_of,
    shown,
)
from mfbench.problems.ratings.errors import Ambiguous, BadData
from mfbench.problems.ratings.left_out import quoted
from mfbench.problems.ratings.lines import BLANKS, DECIMAL_COMMA, WANTED_NUMBER

SAMPLE = 100  # lines looked at
SEPARATORS = {"double-colon": "::", "tab": "\t", "semicolon": ";", "comma": ",", "blanks": BLANKS}
TIMES = (1e8, 1e20)  # numbers between these look like times since 1970, in seconds to nanoseconds, not like ratings
BOOK_CROSSING = ["userid", "isbn", "bookrating"]
is_number = re.compile(f"{WANTED_NUMBER}|{DECIMAL_COMMA}").match
is_day = re.compile(r"(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(\.0)?").fullmatch  # 20050906
is_date = re.compile(r"\d{4}[-/.]\d\d?[-/.]\d\d?([T ].*)?|\d\d?[-/.]\d\d?[-/.]\d{4}([T ].*)?").fullmatch


class Layout(NamedTuple):
    """How the lines of a file are read."""

    separator: str
    fields: int
    columns: Columns
    header: int | None  # line that names the columns, from 0
    first: int  # lines before the first that may hold a rating: header, comments, what is broken
    book_crossing: bool = False  # backslashes escape quotes, and 0 is implicit feedback

    def expected(self) -> str:
        """Return what a line must look like to hold a rating."""
        separator = next(name for name, separator in SEPARATORS.items() if separator == self.separator)
        u, i, r = (column + 1 for column in self.columns)
        return f"{self.fields} fields separated by {separator}: a user in {u}, an item in {i}, a number in {r}"


class Candidate(NamedTuple):
    """A separator, and the first lines split by it."""

    separator: str
    fields: int  # of most lines
    rows: list[list[str]]  # of every line
    lines: list[int]  # their numbers, from 0

    @property
    def fitting(self) -> list[list[str]]:
        return [row for row in self.rows if len(row) == self.fields]

    def from_line(self, i: int) -> Candidate:
        return self._replace(rows=self.rows[i:], lines=self.lines[i:])


def recognize(block: bytes, columns: Sequence[str] | None, format: str | None) -> Layout:
    """Return the layout of a file from its first lines.

    Args:
        block: the first lines.
        columns: names or positions of the three columns, as the user gave them.
        format: a name of `SEPARATORS`, "libmf", "book-crossing" or None.

    Raises:
        BadData: no layout fits, or more than one does; the message lists them.
    """
    sample = _sample(block)
    if not sample:
        raise BadData("expected ratings, found none")
    if _is_json(sample[0][1]):
        raise BadData("is JSON; expected text with one rating a line, such as CSV")
    separators = [SEPARATORS[format]] if format in SEPARATORS else list(SEPARATORS.values())
    if format == "libmf":
        separators = [BLANKS]
    candidates = [found for separator in separators if (found := _candidate(separator, sample, columns))]
    most = max((len(candidate.fitting) for candidate in candidates), default=0)
    candidates = [candidate for candidate in candidates if 2 * len(candidate.fitting) >= most]
    if len(candidates) > 1 and candidates[-1].separator == BLANKS:  # they may be part of identifiers and times
        *others, blanks = candidates
        decimal_commas = [other.separator for other in others] == [","] and all(map(_numeric, chain(*blanks.fitting)))
        candidates = candidates if decimal_commas else others
    if not candidates:
        number, line = sample[0]
        for separator in separators:
            if _names(names := fields_of(line, separator)) >= 2:
                raise BadData(f"expected ratings below the header {shown(names)}, found none")
        raise BadData(
            f"expected lines with a user, an item and a rating, separated by ::, tabs, commas, semicolons or blanks; "
            f"line {number + 1} is {quoted(line.encode())}"
        )
    layouts, faults = [], []
    for candidate in candidates:
        try:
            layouts.append(_layout(candidate, columns, format))
        except BadData as fault:
            faults.append(fault)
    if not layouts:
        raise faults[0]
    named = [layout for layout, by_header in layouts if by_header]
    chosen = named or [layout for layout, _ in layouts]
    if len(chosen) > 1:
        readings = " or ".join(layout.expected() for layout in chosen)
        raise Ambiguous(f"more than one reading: {readings}; --format says which, one of {', '.join(SEPARATORS)}")
    return chosen[0]


def _sample(block: bytes) -> list[tuple[int, str]]:
    lines: list[tuple[int, str]] = []
    start = number = 0
    while len(lines) < SAMPLE and start < len(block):
        end = block.index(b"\n", start)
        text = block[start:end].decode("utf-8", errors="replace")
        if text.strip():
            lines.append((number, text))
        start, number = end + 1, number + 1
    return lines


def _is_json(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict | list)
    except (ValueError, RecursionError):
        return False


def _candidate(separator: str, sample: list[tuple[int, str]], columns: Sequence[str] | None) -> Candidate | None:
    lines = [line for line, _ in sample]
    rows = [fields_of(text, separator) for _, text in sample]
    counts = Counter(len(row) for row in rows if len(row) >= 3 and any(map(_numeric, row)))
    if columns and not counts:  # the user knows better than a look at the names
        counts = Counter(len(row) for row in rows if len(row) >= 3)
    if not counts:
        return None
    header = next((_marked_off(row) for row in rows if _names(row) >= 2), [])
    as_named = [width for width in (len(header), len(header) + 1) if width in counts]
    width = max(as_named or counts, key=lambda width: counts[width])  # the first of those with most lines
    return Candidate(separator, width, rows, lines)


def _names(row: list[str]) -> int:
    """Return how many of user, item and rating a line names."""
    return sum(map(bool, roles_of(_marked_off(row)).values()))


def fields_of(line: str, separator: str) -> list[str]:
    """Split one line, quotes included."""
    if separator == BLANKS:
        line = " ".join(line.split())
    if len(separator) > 1:
        line, separator = line.replace(separator, "\x1f"), "\x1f"
    try:
        return [field.strip() for field in next(csv.reader([line], delimiter=separator), [])]
    except csv.Error:
        return line.split(separator)


def _numeric(field: str) -> bool:
    return is_number(field.strip()) is not None


def _layout(candidate: Candidate, columns: Sequence[str] | None, format: str | None) -> tuple[Layout, bool]:
    """Return the layout, and whether a header named its columns."""
    candidate = _from_header(candidate)
    header = _marked_off(candidate.rows[0])
    chosen, by_header = _columns(candidate, header, columns, format)
    has_header = by_header or _is_header(candidate, candidate.rows[0], chosen)
    line = candidate.lines[0]
    book_crossing = format == "book-crossing" or (by_header and [normalized(name) for name in header] == BOOK_CROSSING)
    return Layout(
        candidate.separator, candidate.fields, chosen, line if has_header else None, line + has_header, book_crossing
    ), by_header


def _from_header(candidate: Candidate) -> Candidate:
    """Drop what precedes the header, or the first line that may hold a rating: comments and broken lines."""
    for i, row in enumerate(candidate.rows):
        if _names(row) >= 2 and not _numeric(row[-1]):
            return candidate.from_line(i)
        commented = candidate.separator == BLANKS and row[0][:1] in ("#", "%")
        if len(row) == candidate.fields and any(map(_numeric, row[1:])) and not commented:
            break
    for i, row in enumerate(candidate.rows):  # no header
        if row[0][:1] not in ("#", "%") or (len(row) == candidate.fields and candidate.separator != BLANKS):
            return candidate.from_line(i)
    return candidate


def _marked_off(row: list[str]) -> list[str]:
    """Return a header's names without the mark of a comment before them."""
    if row and row[0] in ("#", "%"):
        return row[1:]
    return [row[0].lstrip("#%").strip(), *row[1:]] if row else row


def _columns(
    candidate: Candidate, header: list[str], columns: Sequence[str] | None, format: str | None
) -> tuple[Columns, bool]:
    """Return the columns, and whether the header named them."""
    width = candidate.fields
    named = _names(header) if format != "libmf" else 0
    if columns is not None:
        with_names = _named(header, columns, candidate)
        if with_names:
            return with_names, True
        placed = by_position(columns, width)
        if placed is None:
            raise BadData(
                f"expected names of the header, numbers from 1 to {width}, or user,item,rating in the order of the "
                f"columns; got {','.join(columns)!r}, and line {candidate.lines[0] + 1} is {shown(header)}",
                "columns",
            )
        if named == 3 and not columns[0].isdecimal() and by_name(header, None) != placed:
            raise BadData(f"{','.join(columns)} contradicts the header {shown(header)}", "columns")
        return placed, False
    if named and not (width in (3, 4) and len(header) == width and _numeric(header[2])):
        return _shifted(by_name(header, None), header, candidate), True
    return _unnamed(candidate, header), False


def _named(header: list[str], columns: Sequence[str], candidate: Candidate) -> Columns | None:
    if len(columns) != 3 or not set(columns) <= {name.split(":")[0] for name in header} | set(header):
        return None
    if all(column.isdecimal() and 1 <= int(column) <= candidate.fields for column in columns):
        return None  # positions
    return _shifted(by_name(header, columns), header, candidate)


def _shifted(columns: Columns, header: list[str], candidate: Candidate) -> Columns:
    """Return the columns that a header names where its lines have one field more than it has names."""
    more = candidate.fields - len(header)
    if more == 0:
        return columns
    rows = candidate.fitting
    if more == 1 and all(row[-1] == "" for row in rows):
        return columns
    if more == 1 and _counts_up([row[0] for row in rows]):
        return Columns(*(column + 1 for column in columns))  # row names, as R writes them
    raise BadData(
        f"the header has {len(header)} names ({shown(header)}), and most lines have {candidate.fields} fields"
    )


def _unnamed(candidate: Candidate, header: list[str]) -> Columns:
    """Return user, item, rating as the first three columns of a file without a header, if nothing speaks against it."""
    rows, width = candidate.fitting, candidate.fields
    line = f"its first line is {shown(header)}"
    numeric = [any(map(_numeric, column)) for column in zip(*rows, strict=True)]
    if len(header) == width and not any(map(_numeric, header)) and all(header[1:]) and any(numeric):
        raise BadData(f"the header names no user, item and rating: {shown(header)}; --columns U,I,R names the three")
    unnamed = [str(i) for i in range(width)]
    if header in (unnamed, ["", *unnamed[:-1]]) and candidate.separator != BLANKS:
        raise Ambiguous(
            f"more than one reading: {line}, a rating or pandas' header of unnamed columns; "
            f"--columns user,item,rating for a rating, --columns 0,1,2 for a header"
        )
    if width > 4:
        raise Ambiguous(
            f"no header, and {width} columns ({line}); --columns user,item,rating says what the first three hold, "
            f"--columns 2,1,5 which three to take; --format jester reads a matrix of Jester"
        )
    times = [_mostly(_is_time, [field for field in column if _numeric(field)]) for column in zip(*rows, strict=True)]
    dates = [_mostly(_is_date, column) for column in zip(*rows, strict=True)]
    if times[2]:
        raise Ambiguous(
            f"no header, and column 3 looks like times ({line}); more than one reading: "
            f"--columns user,item,rating if it holds the ratings"
            + (", --columns user,item,_,rating if column 4 does" if width == 4 else "")
        )
    early = next((i for i in range(2) if times[i] or dates[i]), None)
    if width == 4 and early is not None and not (times[3] or dates[3]):
        raise Ambiguous(
            f"no header, and column {early + 1} looks like times ({line}); more than one reading: "
            f"--columns user,item,rating if these are identifiers, or what each column holds, as in "
            f"--columns time,user,item,rating"
        )
    if not numeric[2]:
        raise BadData(f"expected lines of user, item, rating; column 3 holds no numbers ({line})")
    if width == 4 and numeric[3] and not times[3] and _counts_up([row[0] for row in rows]):
        raise Ambiguous(
            f"no header, and column 1 counts the lines ({line}); more than one reading: "
            f"--columns user,item,rating, or --columns _,user,item,rating if column 1 is an index"
        )
    return Columns(0, 1, 2)


def _is_header(candidate: Candidate, row: list[str], columns: Columns) -> bool:
    """Return whether the first line holds names where the user said which columns to take."""
    return len(row) == candidate.fields and not any(map(_numeric, row)) and bool(row[columns.rating])


def _mostly(test: Callable[[str], bool], column: Sequence[str]) -> bool:
    return 2 * sum(map(test, column)) > len(column)


def _is_time(number: str) -> bool:
    """Return whether a number may be a time since 1970, or a day as 20050906."""
    return TIMES[0] <= float(number.replace(",", ".")) < TIMES[1] or is_day(number) is not None


def _is_date(field: str) -> bool:
    return is_date(field) is not None


def _counts_up(fields: list[str]) -> bool:
    """Return whether each line's number follows the one before, in three lines or more."""
    if len(fields) < 3 or not all(field.isdecimal() for field in fields):
        return False
    counts = [int(field) for field in fields]
    return counts[0] in (0, 1) and all(b == a + 1 for a, b in pairwise(counts))
