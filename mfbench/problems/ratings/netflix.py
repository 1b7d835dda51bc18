"""Read the files of the Netflix prize: an item's number and a colon, then one line `user,rating,date` a rating."""

from __future__ import annotations

import re
from collections import Counter
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from mfbench.problems.ratings import lines
from mfbench.problems.ratings.errors import BadData
from mfbench.problems.ratings.left_out import Lines
from mfbench.problems.ratings.packages import arrow
from mfbench.problems.ratings.source import Source, Stream
from mfbench.problems.ratings.text import in_order
from mfbench.problems.ratings.triplets import Missing, RatingMatrix, Triplets, encoded, only

EXPECTED = "'item:' or 'user,rating,date' below such a line"
LEADING = 64  # bytes that hold the first line
item_line = re.compile(rb"\s*([^\s,:]+):\s*").fullmatch


class Parsed(NamedTuple):
    """What a block of lines holds. Lines are numbered from 0 in the block."""

    users: Any  # dictionary array of pyarrow
    values: np.ndarray  # (count,) float32, finite
    lines: np.ndarray  # (count,) the line of each rating
    item_lines: list[int]
    items: list[bytes]
    bad: list[tuple[int, bytes]]
    total: int


def recognized(stream: Stream) -> bool:
    """Return whether a file begins with an item's number and a colon."""
    first = stream.peek(LEADING).removeprefix(b"\xef\xbb\xbf").lstrip().splitlines()
    return bool(first) and re.fullmatch(rb"[0-9]+:\s*", first[0]) is not None


def read(source: Source, missing: Missing | None) -> RatingMatrix:
    """Return the ratings of a file in Netflix's layout."""
    pa = arrow("rating files of text")
    blocks = lines.blocks(source.stream)
    first = next(blocks, b"")
    fields = _fields(first)
    triplets, bad = Triplets(source.name, missing), Lines()
    current: bytes | None = None
    number = 1
    for parsed in in_order(lambda block: parse(block, fields), chain([first], blocks)):
        place = np.searchsorted(parsed.item_lines, parsed.lines)  # 1 + the item line above; 0 in an earlier block
        known = place > 0 if current is None else np.ones(len(place), dtype=bool)
        unknown = [(line, b"") for line in parsed.lines[~known].tolist()]
        bad.add((number + line, text) for line, text in sorted(parsed.bad + unknown))
        names = pa.array([current or b"", *parsed.items], pa.binary())
        items = pa.DictionaryArray.from_arrays(pa.array(place.astype(np.int32)), names)
        users = parsed.users if known.all() else only(parsed.users, known)
        triplets.add(users, only(items, known), parsed.values[known])
        current = parsed.items[-1] if parsed.items else current
        number += parsed.total
    bad.report(source.name, EXPECTED)
    return triplets.matrix()


def _fields(block: bytes) -> int:
    counts = Counter(line.count(b",") + 1 for line in block.split(b"\n", 1000)[:1000] if b"," in line)
    if not counts:
        raise BadData(f"expected lines {EXPECTED}, found no rating")
    return counts.most_common(1)[0][0]


def parse(block: bytes, fields: int) -> Parsed:
    """Return the ratings, items and other lines of a block."""
    split = lines.split(block, ",", fields, (0, 1))
    users, whole = encoded(split.columns[0])
    values = lines.numbers(split.columns[1])
    good = ~np.isnan(values) if whole is None else ~np.isnan(values) & whole
    numbers = split.line_numbers()
    item_lines, items, bad = [], [], []
    for line, text in split.odd:
        if found := item_line(text):
            item_lines.append(line)
            items.append(found[1])
        elif text.strip():
            bad.append((line, text))
    if not good.all():
        content = block.split(b"\n")
        bad += [(line, content[line]) for line in numbers[~good].tolist() if content[line].strip()]
        users = only(users, good)
    return Parsed(users, values[good], numbers[good], item_lines, items, bad, split.lines)
