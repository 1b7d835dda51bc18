"""Read text with one rating a line."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from typing import Any, NamedTuple, TypeVar

import numpy as np

from mfbench.problems.ratings import lines
from mfbench.problems.ratings.errors import Ambiguous
from mfbench.problems.ratings.layout import Layout, recognize
from mfbench.problems.ratings.left_out import Lines
from mfbench.problems.ratings.source import Source
from mfbench.problems.ratings.triplets import Missing, RatingMatrix, Triplets, encoded, only

IMPLICIT = Missing(0.0, "implicit feedback in Book-Crossing")
T = TypeVar("T")
Numbered = tuple[int, bytes]  # a line's number and content


class Parsed(NamedTuple):
    """What a block of lines holds."""

    users: Any  # dictionary arrays of pyarrow
    items: Any
    values: np.ndarray  # (count,) float32, finite
    bad: list[Numbered]  # lines without a rating, numbered from 0 in the block
    lines: int
    points: bool  # a rating has a decimal point
    commas: bool  # a rating has what can only be a decimal comma
    unclear: Numbered | None  # first rating whose comma may separate thousands


def read(source: Source, columns: Sequence[str] | None, format: str | None, missing: Missing | None) -> RatingMatrix:
    """Return the ratings of a text file.

    Lines that hold no rating are left out, and a `DataWarning` counts and names them.
    """
    return _collected(source, columns, format, missing).matrix()


def _collected(source: Source, columns: Sequence[str] | None, format: str | None, missing: Missing | None) -> Triplets:
    blocks = lines.blocks(source.stream)
    first = next(blocks, b"")
    layout = recognize(first, columns, format)
    if layout.book_crossing and missing is None:
        missing = IMPLICIT
    head, first = cut(first, layout.first)
    bad = Lines()
    bad.add((i + 1, line) for i, line in enumerate(head) if i != layout.header and not _is_ignored(line))
    triplets = Triplets(source.name, missing)
    number = layout.first + 1
    points = commas = False
    unclear: Numbered | None = None
    for parsed in in_order(lambda block: parse(block, layout), chain([first] if first else [], blocks)):
        bad.add((number + line, text) for line, text in parsed.bad)
        triplets.add(parsed.users, parsed.items, parsed.values)
        points, commas = points or parsed.points, commas or parsed.commas
        if parsed.unclear and not unclear:
            unclear = number + parsed.unclear[0], parsed.unclear[1]
        number += parsed.lines
    if unclear and (points or not commas):
        raise Ambiguous(
            f"more than one reading of the rating {unclear[1].decode()!r} in line {unclear[0]}: its comma may separate "
            "decimals or thousands; write it without a comma, decimals after a point"
        )
    bad.report(source.name, layout.expected())
    return triplets


def cut(block: bytes, count: int) -> tuple[list[bytes], bytes]:
    """Return the first lines of a block, and the rest of it."""
    end = 0
    head = []
    for _ in range(count):
        start, end = end, block.index(b"\n", end) + 1
        head.append(block[start:end])
    return head, block[end:]


def _is_ignored(line: bytes) -> bool:
    """Return whether a line before the first rating is blank or a comment."""
    return not line.strip() or line.lstrip()[:1] in (b"#", b"%")


def parse(block: bytes, layout: Layout) -> Parsed:
    """Return the ratings of a block of lines, and the lines that hold none."""
    fields = lines.split(block, layout.separator, layout.fields, layout.columns, layout.book_crossing)
    user_column, item_column, rating_column = fields.columns
    users, whole_user = encoded(user_column)
    items, whole_item = encoded(item_column)
    values = lines.numbers(rating_column)
    commas, unclear = False, None
    if np.isnan(values).any():
        values, found = lines.decimal_commas(rating_column, values)
        commas = found.clear
        if len(found.unclear):
            row = int(found.unclear[0])
            unclear = int(fields.line_numbers()[row]), rating_column[row].as_py()
    points = bool((np.frombuffer(rating_column.buffers()[2] or b"", np.uint8) == ord(".")).any())
    notation = points, commas, unclear
    good = ~np.isnan(values)
    for whole in (whole_user, whole_item):
        if whole is not None:
            good &= whole
    if good.all() and not fields.odd:
        return Parsed(users, items, values, [], fields.lines, *notation)
    bad = sorted([*(line for line, _ in fields.odd), *fields.line_numbers()[~good].tolist()])
    named = [*_not_blank(block, bad)]
    return Parsed(only(users, good), only(items, good), values[good], named, fields.lines, *notation)


def _not_blank(block: bytes, numbers: Iterable[int]) -> Iterator[Numbered]:
    """Yield those lines of a block, with their numbers, that are not blank."""
    content = block.split(b"\n")
    for number in numbers:
        if content[number].strip():
            yield number, content[number]


def in_order(task: Callable[[bytes], T], blocks: Iterable[bytes]) -> Iterator[T]:
    """Yield the task's results in the order of the blocks, computed by a few threads on few blocks at a time."""
    threads = min(4, os.cpu_count() or 1)
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for block in blocks:
            waiting.append(pool.submit(task, block))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
