"""Read Jester's matrices as text: a user a line, first the number of the user's ratings, then one column a joke."""

from __future__ import annotations

from collections import Counter

import numpy as np

from mfbench.problems.ratings import lines
from mfbench.problems.ratings.errors import BadData
from mfbench.problems.ratings.layout import SEPARATORS, fields_of
from mfbench.problems.ratings.left_out import Lines
from mfbench.problems.ratings.packages import arrow
from mfbench.problems.ratings.source import Source
from mfbench.problems.ratings.triplets import Missing, RatingMatrix, Triplets

MISSING = Missing(99.0, "missing in Jester")
SAMPLE = 100  # lines looked at


def read(source: Source) -> RatingMatrix:
    """Return the ratings; users are identified by their line, jokes by their column, both from 1.

    Lines whose first number does not count their ratings are left out.
    """
    pa = arrow("rating files of text")
    triplets, bad = Triplets(source.name), Lines()
    number, layout, expected = 1, None, ""
    for block in lines.blocks(source.stream):
        if layout is None:
            layout = separator, width = _layout(block)
            expected = f"{width} numbers, the first of which counts those of the others that are not 99"
        split = lines.split(block, separator, width, range(width))
        table = np.column_stack([lines.numbers(column) for column in split.columns])
        at, content = split.line_numbers(), block.split(b"\n")
        observed = table[:, 1:] != MISSING.value
        good = ~np.isnan(table).any(axis=1) & (table[:, 0] == observed.sum(axis=1))
        odd = [*(line for line, _ in split.odd), *at[~good].tolist()]
        bad.add((number + line, content[line]) for line in sorted(odd) if content[line].strip())
        rows, columns = np.nonzero(observed & good[:, None])
        triplets.add(
            pa.array(number + at[rows]).dictionary_encode(),
            pa.array(columns + 1).dictionary_encode(),
            table[rows, columns + 1],
        )
        number += split.lines
    bad.report(source.name, expected)
    return triplets.matrix()


def _layout(block: bytes) -> tuple[str, int]:
    """Return the separator, and the number of fields of most lines."""
    sample = [line for line in block.decode("utf-8", errors="replace").split("\n", SAMPLE)[:SAMPLE] if line.strip()]
    counts = Counter(
        (len(fields_of(line, separator)), separator) for line in sample for separator in SEPARATORS.values()
    )
    wide = {layout: count for layout, count in counts.items() if layout[0] >= 3}
    if not wide:
        raise BadData("expected lines of numbers, the first of which counts the ratings", "format")
    width, separator = max(wide, key=lambda layout: (wide[layout], layout[0]))
    return separator, width
