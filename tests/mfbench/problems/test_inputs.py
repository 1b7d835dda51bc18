"""Inputs: blocks are observed as a whole, in the number asked for."""

from __future__ import annotations

import pytest
import torch

from mfbench.problems import inputs as module
from mfbench.problems.cases import Case
from mfbench.problems.inputs import BLOCK, draw, fingerprints


def case(data: str = "blocks", **changes) -> Case:
    values = {
        "suite": "tests", "m": 300, "n": 200, "rank": 5, "density": 0.3, "ratings_dtype": "float32", "mask": "uint8",
        "data": data, "seed": 3,
    }  # fmt: skip
    return Case.model_validate(values | changes)


def test_blocks_are_observed_as_a_whole_and_as_many_as_asked_for() -> None:
    mask = draw(case()).mask
    assert mask is not None
    tiles = [part for rows in mask.split(BLOCK) for part in rows.split(BLOCK, dim=1)]
    assert {bool(tile.any()) for tile in tiles} == {False, True}
    assert all(tile.any() == tile.all() for tile in tiles)
    assert sum(bool(tile.any()) for tile in tiles) == round(0.3 * len(tiles))
    assert draw(case(density=1.0)).mask.all()
    assert not draw(case(density=0.0)).mask.any()


@pytest.mark.parametrize("mask", ["uint8", "none", "float32"])
def test_sums_in_blocks_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch, mask: str) -> None:
    drawn = draw(case("synthetic", mask=mask))
    whole = fingerprints(drawn)
    monkeypatch.setattr(module.block_slices, "__defaults__", (1000,))
    assert fingerprints(drawn) == whole
    bits = drawn.ratings.view(torch.int32)
    assert whole["ratings"] == (int(bits.sum()), int(bits[::7].sum()))
    observed = ~drawn.ratings.isnan() if drawn.mask is None else drawn.mask != 0
    assert drawn.observed == int(observed.sum())
