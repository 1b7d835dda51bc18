"""Finds tiles for `kernels/gpu/tiles.py`: `python -m mfbench.inspect.search sm_90 tf32x3 wide`.

Candidates are compiled, those that spill whatever the assembler is told are dropped, and of the clean ones the least
modelled time wins; a program that is alone on its multiprocessor hides no latency and is taken to need half as long
again. A cell's tiles for ratings loaded one by one and for packed masks are left to `mfbench inspect --encoding`.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator

from kernels.gpu.tiles import TILES, WIDTHS
from mfbench.inspect.builds import examine
from mfbench.inspect.document import Build, Spec

RANK = dict(zip(WIDTHS, (8, 30, 62, 64, 100, 128, 256), strict=True))
ALONE = 1.5
ENOUGH = 3  # clean candidates
# Largest first: each rating of a large tile shares more of the factors' traffic.
FUSED = "64x64x4 64x64x8 64x32x4 64x32x8 32x32x4 32x32x8 64x16x4 32x16x4 32x16x8 16x16x4 16x16x8"
CHUNKED = (
    "128x64x8/64 128x64x8/32 64x64x4/64 64x64x8/64 64x64x4/32 64x64x8/32 64x32x4/64 64x32x8/64 64x32x4/32 64x32x8/32 "
    "32x32x4/64 32x32x4/32 32x32x8/32 32x16x4/32 16x16x4/32"
)
TOLD = ("", "~", "@4", "@4~", "@3", "@3~", "@2", "@2~", "@1", "@1~")  # to the assembler, the least first
DEMANDING = ("uint8-bits", "uint8-code", "bfloat16-nan", "float32-nan")


def search(target: str, precision: str, width: str) -> str:
    """The tile for a width of the factors: `a`, `a|b` or `-` as in the table."""
    fast = _best(target, precision, width, "fast", _candidates(width))
    if fast != "-" and _best(target, precision, width, "deterministic", [fast]) == fast:
        return fast
    return f"{fast}|{_best(target, precision, width, 'deterministic', _candidates(width))}"


def _candidates(width: str) -> list[str]:
    fused = FUSED.split() if width != "wide" else []
    return [*(CHUNKED.split() if width in ("128", "128s", "wide") else []), *fused]


def _best(target: str, precision: str, width: str, mode: str, candidates: list[str]) -> str:
    def build(tile: str, encoding: str = "float32+uint8") -> Build | None:
        return _clean_build(tile, Spec(target, RANK[width], precision, encoding, mode))

    each = ((tile, next(filter(None, (build(tile + words) for words in TOLD)), None)) for tile in candidates)
    clean = itertools.islice(((tile, found) for tile, found in each if found), ENOUGH)
    for tile, found in sorted(clean, key=lambda pair: clocks_per_rating(pair[1])):
        print(f"# {mode} {tile}: {clocks_per_rating(found):.2f} clocks a rating", file=sys.stderr)
        for words in TOLD:
            if all(build(tile + words, encoding) for encoding in DEMANDING):
                return tile + words
    return "-"


def _clean_build(tile: str, spec: Spec) -> Build | None:
    """The build with that tile, where it is clean."""
    TILES[spec.target][spec.precision] = " ".join([tile] * len(WIDTHS))
    build = examine(spec)
    return build if isinstance(build, Build) and build.ok else None


def clocks_per_rating(build: Build) -> float:
    """Modelled clocks of the resource that binds, over the ratings of a tile."""
    users, items = map(int, build.tile.split("x")[:2])
    alone = ALONE if build.blocks == 1 else 1
    return alone * getattr(build.modelled, build.modelled.binds) / (users * items)


def rows(arguments: list[str]) -> Iterator[str]:
    """Lines of the form `target precision width tile`; each argument is a comma-separated list."""
    targets, precisions, widths = (argument.split(",") for argument in arguments)
    for target in targets:
        for precision in precisions:
            for width in widths:
                yield f"{target} {precision} {width} {search(target, precision, width)}"


if __name__ == "__main__":
    for row in rows(sys.argv[1:]):
        print(row, flush=True)
