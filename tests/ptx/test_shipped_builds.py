"""Tiles shipped for targets with asynchronous matrix units, each executed on a drawn problem that it walks in tiles.

Operands of asynchronous instructions are read as early as hardware may read them, at issue, and in a second run as late
as it may, at the wait: the results must agree bit for bit.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

import pytest
import torch

from kernels.gpu import config
from kernels.gpu.tiles import SPILLS, Row, Tile

from .draws import draw
from .steps import execute, the_pass

RANKS = {  # width of the padded factors -> ranks that have it
    "16": (1, 14),
    "32": (15, 30),
    "64": (31, 62),
    "64s": (63, 64),
    "128": (65, 126),
    "128s": (127, 128),
    "wide": (129, 256),
}
ALIGNED = (
    "float32, uint8 mask", "uint8-code", "float32-nan", "uint8-bits", "bfloat16-nan", "int8-bits", "float16-nan",
    "float64-nan",
)  # fmt: skip
UNALIGNED = ("float32 with gaps between rows", "float32, bool mask, transposed", "float32, uint8 mask", "uint8-code")
WEIGHTED = ("float32, bfloat16 weights", "uint8, float32 mask")


class Case(NamedTuple):
    row: Row
    deterministic: bool
    aligned: bool
    encoding: str

    @property
    def tile(self) -> Tile:
        packed, weighted = self.encoding.endswith("bits"), self.encoding in WEIGHTED
        return self.row.tile(self.deterministic, self.aligned, packed, weighted)

    def __str__(self) -> str:
        mode = "deterministic" if self.deterministic else "fast"
        alignment = "aligned" if self.aligned else "unaligned"
        return f"{self.row.target}-{self.row.precision}-{self.row.width}-{mode}-{alignment}-{self.encoding}"


def cases() -> Iterator[Case]:
    """Yield a case for each tile that the table names for sm_90, and for some that use tcgen05 on sm_100.

    A row that names none for the deterministic mode is executed there with weights or without alignment, on the tile
    that is derived for those.
    """
    for place, row in enumerate(_rows("sm_90")):
        aligned = ALIGNED[place % len(ALIGNED)]
        other = (*UNALIGNED, *WEIGHTED)[place % (len(UNALIGNED) + len(WEIGHTED))]
        yield Case(row, False, True, aligned)
        yield Case(row, True, row.exclusive is not None, aligned if row.exclusive else other)
        if row.unaligned is not None:
            yield Case(row, place % 2 == 0, False, UNALIGNED[place % len(UNALIGNED)])
    for place, row in enumerate(row for row in _rows("sm_100") if row.fast.BM >= 64):
        if row.precision in ("tf32", "bf16x3", "tf32x3") and row.width != "wide":
            yield Case(row, place % 2 == 0, True, ALIGNED[place % len(ALIGNED)])


def _rows(target: str) -> list[Row]:
    return [row for rows in config.shipped_rows()[target].values() for row in rows.values()]


CASES = [case for case in cases() if case.tile != SPILLS]
QUICK = ("sm_90-tf32-32-fast", "sm_90-bf16x3-32-deterministic")


@pytest.fixture(autouse=True)
def one_split(monkeypatch, few_programs):
    """In the fast mode one program for each block of users, so that it walks all tiles of items."""
    monkeypatch.setattr(config, "PROGRAMS_PER_MULTIPROCESSOR", 1)


def sizes(case: Case, seed: int) -> tuple[int, int, int]:
    """Return a rank, and users and items of about a block and of at least three tiles, ragged."""
    numbers, tile = random.Random(seed), case.tile
    items = 2 * tile.BN + 16 if case.aligned else 2 * tile.BN + numbers.randrange(1, 16)
    rank, users = numbers.randint(*RANKS[case.row.width]), tile.BM + numbers.randint(-tile.BM // 2, 3)
    return (rank, items, users) if "transposed" in case.encoding else (rank, users, items)  # the step transposes back


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=str(case), marks=() if str(case).startswith(QUICK) else pytest.mark.ptx) for case in CASES],
)
def test_a_shipped_tile(case: Case):
    seed = CASES.index(case)
    rank, m, n = sizes(case, seed)
    double = case.row.precision == "float64"
    precision = "ieee" if double else case.row.precision
    problem = draw(seed, case.encoding, rank, m, n, 0.5, torch.float64 if double else torch.float32)
    results = []
    for late in (False, True):
        plan = problem.plan(case.row.target, precision, case.deterministic)
        step = the_pass(plan)
        constants = step.constants
        assert (constants["BM"], constants["BN"], step.num_warps) == (case.tile.BM, case.tile.BN, case.tile.num_warps)
        assert step.grid[1] * constants["BN"] < (m if "transposed" in case.encoding else n), "one tile for each program"
        assert execute(plan, late=late) == []
        errors = problem.errors(plan, precision)
        assert max(errors.values()) <= 1, errors
        loss, grads = plan.result()
        results.append([loss, *grads])
        if "wgmma" not in step.ptx and "tcgen05" not in step.ptx:
            return
    assert all(torch.equal(early, late) for early, late in zip(*results, strict=True))
