"""Tiles, and the rows of the table in tile_table.py.

Of the tiles that fit a target's registers and shared memory a row has those with the least modelled time.
`python -m mfbench.inspect.search` writes the rows; `mfbench inspect --all` compiles and checks every one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

WIDTHS = ("16", "32", "64", "64s", "128", "128s", "wide")  # columns; s: bias gradients by sums; wide: above WIDEST
WIDEST = 128  # rank


@dataclass(frozen=True)
class Tile:
    """What a program works on at a time, and what the assembler is asked for."""

    BM: int  # users
    BN: int  # items
    num_warps: int
    chunk: int = 0  # columns of the factors at a time; 0: all, and the users' stay in registers
    resident: int = 0  # ptxas leaves registers for this many programs per multiprocessor; 0: for as many as it likes
    frugal: bool = False  # ptxas spends no registers on speed

    def halved(self) -> Tile:
        """Return the tile with half of its items, or of its users if it has no more than 16 items."""
        if self.BN > 16:
            return replace(self, BN=self.BN // 2)
        return replace(self, BM=max(16, self.BM // 2))


SMALL = 512  # ratings of a tile that is small enough for unaligned weights
SPILLS = Tile(0, 0, 0)  # in a row: every tile that was tried spills registers


@dataclass(frozen=True)
class Row:
    """The tiles of one target, precision and width, one for each way of reading and adding.

    They differ since slices of dB, addresses of single ratings and unpacking of bits each take registers.
    """

    target: str
    precision: str
    width: str
    fast: Tile  # all programs add into one dB, by atomics
    exclusive: Tile | None = None  # each group of programs has its own dB; None: as fast
    unaligned: Tile | None = None  # ratings are loaded one by one, not in vectors; None: half of the tile else used
    packed: Tile | None = None  # the mask is packed in bits; None: as fast or exclusive

    def tile(self, exclusive: bool, aligned: bool, packed: bool, weighted: bool = False) -> Tile:
        """Return the tile for a launch. Unaligned ones use that for exclusive dB, which takes fewer registers.

        Weights take registers as addresses of single ratings do: they use the tile for these, and half of a large one
        if they are unaligned themselves.
        """
        if weighted:
            tile = self.tile(True, False, False)
            return tile if aligned or tile.BM * tile.BN <= SMALL else tile.halved()
        if not aligned and self.unaligned is not None:
            return self.unaligned
        tile = (self.exclusive if exclusive or not aligned else None) or self.fast
        if packed:
            tile = self.packed or tile
        return tile if aligned or tile == SPILLS else tile.halved()


Rows = dict[str, dict[str, dict[str, Row]]]  # by target, precision and width


def nested(table: list[Row]) -> Rows:
    """Return the rows by target, precision and width."""
    rows: Rows = {}
    for row in table:
        rows.setdefault(row.target, {}).setdefault(row.precision, {})[row.width] = row
    return rows
