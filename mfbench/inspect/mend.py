"""Replace the tiles of builds that `mfbench inspect --all` finds faulty: `python -m mfbench.inspect.mend sm_90`.

Every build of a row is compiled. Where one is faulty, the tile of its kind of build gives way to the first that leaves
all of that kind clean: the same tile with more requests to the assembler, then smaller ones. Kinds without a tile are
left to `mfbench.inspect.search`. The table is written after every row that changed. Run it with each supported version
of Triton: older ones have separate rows.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator
from dataclasses import replace

from kernels.gpu.config import TARGETS, shipped_rows, width_of
from kernels.gpu.tiles import SPILLS, WIDTHS, Row, Tile
from mfbench.inspect.builds import ENCODINGS, MODES, PRECISIONS, RANKS, distinct, examine, specs
from mfbench.inspect.document import NotBuilt, Spec
from mfbench.inspect.search import candidates_of, listed, requesting, rows_in_use, source, write

KINDS = ("fast", "exclusive", "unaligned", "packed")  # the fields of a row that are tiles
CLEAN: dict[tuple[Tile, Spec], bool] = {}  # what was compiled


def mend(row: Row) -> Row:
    """Return the row with clean tiles in the place of faulty ones."""
    ranks = [rank for rank in RANKS if width_of(rank) == row.width]
    wanted = distinct(specs([row.target], ranks, [row.precision], ENCODINGS, MODES))
    while faulty := [spec for spec in wanted if not _is_clean(row, spec)]:
        kind = _kind(faulty[0])
        served = [spec for spec in wanted if _kind(spec) == kind]
        served.sort(key=lambda spec: spec not in faulty)  # those that may rule a tile out come first
        row = _with_clean_tile(row, kind, served)
    return row


def _with_clean_tile(row: Row, kind: str, served: list[Spec]) -> Row:
    for tile in dict.fromkeys(_alternatives(row, served[0])):
        mended = _with_tile(row, kind, tile)
        if all(_is_clean(mended, spec) for spec in served):
            return mended
    return _with_tile(row, kind, SPILLS)


def _with_tile(row: Row, kind: str, tile: Tile) -> Row:
    values = {name: getattr(row, name) for name in KINDS} | {kind: tile}
    return Row(row.target, row.precision, row.width, **values)


def _kind(spec: Spec) -> str:
    """Return the field of a row whose tile a build has."""
    encoding = ENCODINGS[spec.encoding]
    if encoding.demanding:
        return "unaligned"
    return "packed" if encoding.form == "bits" else "fast" if spec.mode == "fast" else "exclusive"


def _tile(row: Row, spec: Spec) -> Tile:
    encoding = ENCODINGS[spec.encoding]
    return row.tile(spec.mode == "deterministic", not encoding.odd, encoding.form == "bits", encoding.form == "float32")


def _alternatives(row: Row, spec: Spec) -> Iterator[Tile]:
    """Yield the tile that a build has, with stronger requests, then smaller ones."""
    tile = _tile(row, spec)
    yield from requesting(tile)
    plain = replace(tile, resident=0, frugal=False)
    smaller = (plain.halved(), plain.halved().halved(), *candidates_of(row.target, row.precision, row.width))
    for other in smaller:
        if other.BM * other.BN < tile.BM * tile.BN or other.chunk:
            yield from requesting(other)


def _is_clean(row: Row, spec: Spec) -> bool:
    """Compile a build with a row's tiles, unless it was; what is not shipped for another reason counts as clean."""
    key = _tile(row, spec), spec
    if key not in CLEAN:
        rows = shipped_rows()[row.target][row.precision] | {row.width: row}
        with rows_in_use(row.target, row.precision, rows):
            build = examine(spec)
        CLEAN[key] = not build.shipped if isinstance(build, NotBuilt) else build.ok
    return CLEAN[key]


def main(arguments: list[str]) -> None:
    """Mend the rows of targets, and write each one that changed."""
    parser = argparse.ArgumentParser(
        "python -m mfbench.inspect.mend", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", type=listed(TARGETS), help=f"comma-separated: {', '.join(TARGETS)}")
    for name, choices in (("precision", PRECISIONS), ("width", WIDTHS)):
        parser.add_argument(f"--{name}", type=listed(choices), default=list(choices), help="comma-separated; else all")
    given = parser.parse_args(arguments)
    for target in given.target:
        if target not in shipped_rows():
            parser.error(f"target: {target} has no rows in the table")
    changed: list[Row] = []
    for target, precision, width in itertools.product(given.target, given.precision, given.width):
        before = shipped_rows()[target].get(precision, {}).get(width)
        if before is None:
            continue
        row = mend(before)
        if row != before:
            changed.append(row)
            write(changed)
        print(f"{target} {precision} {width}: {'clean' if row == before else source(row)}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
