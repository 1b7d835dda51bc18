"""Find tiles and write their rows to `kernels/gpu/tile_table.py`: `python -m mfbench.inspect.search sm_90 tf32x3 wide`.

Each argument is a comma-separated list. Candidates are compiled, those that spill under every request to the assembler
are dropped, and of the clean ones the least modelled time wins; a program that is alone on its multiprocessor hides no
latency and is assumed to need half as long again. The tiles of a row for unaligned ratings and packed masks are kept:
`mfbench.inspect.mend` replaces those that are not clean.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, fields, replace
from pathlib import Path

from kernels.gpu import tile_table
from kernels.gpu.config import ARITHMETIC, TARGETS, most_columns, shipped_rows
from kernels.gpu.tiles import SPILLS, WIDTHS, Row, Tile
from kernels.gpu.version import is_old
from mfbench.inspect.builds import PRECISIONS, examine
from mfbench.inspect.document import Build, Spec
from mfbench.wording import one_of

TABLE_FILE = '''"""Tiles for every target, precision and width. Written by `mfbench.inspect.search`; see tiles.py."""

from kernels.gpu.tiles import {names}

# fmt: off
TABLE = [
{rows}]

# With a Triton older than `version.OLD`, these take the place of the rows of the same target, precision and width.
OLD_TABLE: list[Row] = [
{old_rows}]
'''
RANK = dict(zip(WIDTHS, (8, 30, 62, 64, 100, 128, 256), strict=True))  # compiled for each width
ALONE = 1.5  # factor on the time of a program that is alone on its multiprocessor
ENOUGH = 3  # clean candidates to choose from
# Largest first: each rating of a large tile shares more of the factors' traffic.
FUSED = [
    Tile(*sizes)
    for sizes in (
        (64, 64, 4), (64, 64, 8), (64, 32, 4), (64, 32, 8), (32, 32, 4), (32, 32, 8), (64, 16, 4), (32, 16, 4),
        (32, 16, 8), (16, 16, 4), (16, 16, 8),
    )
]  # fmt: skip
CHUNKED = [
    Tile(*sizes)
    for sizes in (
        (128, 64, 8, 64), (128, 64, 8, 32), (64, 64, 4, 64), (64, 64, 8, 64), (64, 64, 4, 32), (64, 64, 8, 32),
        (64, 32, 4, 64), (64, 32, 8, 64), (64, 32, 4, 32), (64, 32, 8, 32), (32, 32, 4, 64), (32, 32, 4, 32),
        (32, 32, 8, 32), (32, 16, 4, 32), (16, 16, 4, 32),
    )
]  # fmt: skip
# (resident, frugal): what the assembler is asked for, the least first.
REQUESTS = [(resident, frugal) for resident in (0, 4, 3, 2, 1) for frugal in (False, True)]
DEMANDING = ("uint8-bits", "uint8-code", "bfloat16-nan", "float32-nan")


def search(target: str, precision: str, width: str) -> Row:
    """Return the row of a width, its tiles for unaligned ratings and packed masks as the table has them."""
    before = shipped_rows().get(target, {}).get(precision, {}).get(width, Row(target, precision, width, SPILLS))
    candidates = candidates_of(target, precision, width)
    fast = _best(target, precision, width, "fast", candidates)
    exclusive = None
    if fast == SPILLS or _best(target, precision, width, "deterministic", [fast]) != fast:
        exclusive = _best(target, precision, width, "deterministic", candidates)
    return replace(before, fast=fast, exclusive=exclusive)


def candidates_of(target: str, precision: str, width: str) -> list[Tile]:
    columns = most_columns(ARITHMETIC[precision], TARGETS[target])
    chunked = [tile for tile in CHUNKED if tile.chunk <= columns and (columns > 128 or tile.BM <= 64)]
    return [*(chunked if width in ("128", "128s", "wide") else []), *(FUSED if width != "wide" else [])]


def _best(target: str, precision: str, width: str, mode: str, candidates: list[Tile]) -> Tile:
    def build(tile: Tile, encoding: str = "float32+uint8") -> Build | None:
        return _clean_build(tile, Spec(target, RANK[width], precision, encoding, mode))

    each = ((tile, next(filter(None, map(build, requesting(tile))), None)) for tile in candidates)
    clean = itertools.islice(((tile, found) for tile, found in each if found), ENOUGH)
    for candidate, found in sorted(clean, key=lambda pair: clocks_per_rating(pair[1])):
        print(f"# {mode} {source(candidate)}: {clocks_per_rating(found):.2f} clocks per rating", file=sys.stderr)
        for tile in requesting(candidate):
            if all(build(tile, encoding) for encoding in DEMANDING):
                return tile
    return SPILLS


def requesting(tile: Tile) -> Iterator[Tile]:
    """Yield the tile with its request to the assembler, then with every stronger one."""
    for resident, frugal in REQUESTS[REQUESTS.index((tile.resident, tile.frugal)) :]:
        yield replace(tile, resident=resident, frugal=frugal)


def _clean_build(tile: Tile, spec: Spec) -> Build | None:
    """Return the build with that tile if it is clean."""
    rows = {width: Row(spec.target, spec.precision, width, tile) for width in WIDTHS}
    with rows_in_use(spec.target, spec.precision, rows):
        build = examine(spec)
    return build if isinstance(build, Build) and build.ok else None


@contextmanager
def rows_in_use(target: str, precision: str, rows: dict[str, Row]) -> Iterator[None]:
    """Temporarily use these rows of a target and precision, by width."""
    of_target = shipped_rows()[target]
    before = of_target.get(precision)
    of_target[precision] = rows
    try:
        yield
    finally:
        if before is None:
            del of_target[precision]
        else:
            of_target[precision] = before


def clocks_per_rating(build: Build) -> float:
    """Return the modelled clocks of the limiting resource, over the ratings of a tile."""
    users, items = map(int, build.tile.split("x")[:2])
    alone = ALONE if build.blocks == 1 else 1
    clocks: float = getattr(build.modelled, build.modelled.binds)
    return alone * clocks / (users * items)


def source(value: Row | Tile | int | str) -> str:
    """Return the Python expression for a row or a tile, without the fields that have their defaults."""
    if value == SPILLS:
        return "SPILLS"
    if not isinstance(value, (Row, Tile)):
        return json.dumps(value) if isinstance(value, str) else repr(value)
    parts = []
    for field in fields(value):
        part = getattr(value, field.name)
        if field.default is MISSING:
            parts.append(source(part))
        elif part != field.default:
            parts.append(f"{field.name}={source(part)}")
    return f"{type(value).__name__}({', '.join(parts)})"


def table_source(table: Iterable[Row], old_table: Iterable[Row]) -> str:
    """Return the text of `kernels/gpu/tile_table.py`, rows of a target and precision in the order of `WIDTHS`."""
    table = list(table)
    targets, precisions = (list(dict.fromkeys(getattr(row, name) for row in table)) for name in ("target", "precision"))

    def place(row: Row) -> tuple[int, int, int]:
        return targets.index(row.target), precisions.index(row.precision), WIDTHS.index(row.width)

    rows, old_rows = (
        "".join(f"    {source(row)},\n" for row in sorted(chosen, key=place)) for chosen in (table, old_table)
    )
    names = "SPILLS, Row, Tile" if "SPILLS" in rows + old_rows else "Row, Tile"
    return TABLE_FILE.format(names=names, rows=rows, old_rows=old_rows)


def write(found: Iterable[Row]) -> None:
    """Write the table with the rows that were found, in the place of those of the installed Triton."""
    tables = [
        {(row.target, row.precision, row.width): row for row in rows}
        for rows in (tile_table.TABLE, tile_table.OLD_TABLE)
    ]
    tables[is_old()] |= {(row.target, row.precision, row.width): row for row in found}
    Path(tile_table.__file__).write_text(table_source(*(table.values() for table in tables)))


def main(arguments: list[str]) -> None:
    """Search the rows of every combination, and write each one immediately."""
    parser = argparse.ArgumentParser(
        "python -m mfbench.inspect.search", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, choices in (("target", TARGETS), ("precision", PRECISIONS), ("width", WIDTHS)):
        parser.add_argument(name, type=listed(choices), help=f"comma-separated: {', '.join(choices)}")
    given = parser.parse_args(arguments)
    found: list[Row] = []
    for target, precision, width in itertools.product(given.target, given.precision, given.width):
        found.append(search(target, precision, width))
        print(source(found[-1]), flush=True)
        write(found)


def listed(choices: Collection[str]) -> Callable[[str], list[str]]:
    """Return what splits an argument into names, and refuses those that are none of the choices."""

    def split(argument: str) -> list[str]:
        names = argument.split(",")
        if unknown := [name for name in names if name not in choices]:
            raise argparse.ArgumentTypeError(one_of(choices, unknown[0]))
        return names

    return split


if __name__ == "__main__":
    main(sys.argv[1:])
