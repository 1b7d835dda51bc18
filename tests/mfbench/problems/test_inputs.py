"""Inputs: blocks are observed as a whole, in the number asked for."""

from __future__ import annotations

import pytest
import torch

from kernels.encoding import CROSSOVER
from mfbench.problems import inputs as module
from mfbench.problems.cases import Case, CaseSpec
from mfbench.problems.inputs import BLOCK, draw, fingerprints, resolve
from mfbench.problems.matrices import parts, to_dense


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


@pytest.mark.parametrize("data", ["synthetic", "blocks", "seed", "power-law"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
def test_either_layout_holds_the_same_ratings(monkeypatch: pytest.MonkeyPatch, data: str, dtype: str) -> None:
    monkeypatch.setattr(module.block_slices, "__defaults__", (5000,))
    dense = draw(case(data, ratings_dtype=dtype))
    sparse = draw(case(data, ratings_dtype=dtype, layout="sparse", mask="none"))
    assert dense.mask is not None
    assert (dense.sparse, sparse.sparse, sparse.mask) == (False, True, None)
    ratings, mask = to_dense(sparse.ratings)
    assert torch.equal(mask, dense.mask)
    assert torch.equal(ratings, dense.ratings.masked_fill(dense.mask == 0, 0))
    assert ratings.dtype == getattr(torch, dtype)
    assert sparse.observed == dense.observed == int(mask.sum())
    for name in module.Inputs._fields[:5]:
        assert torch.equal(getattr(sparse, name), getattr(dense, name))


@pytest.mark.parametrize("elements", [1, 40, 1000, 10**9])
def test_blocks_of_users_hold_few_ratings_and_each_user_once(elements: int) -> None:
    inputs = draw(case("power-law", layout="sparse", mask="none", density=0.05))
    blocks = list(inputs.user_blocks(elements))
    assert [block.start for block in blocks] == [0, *(block.stop for block in blocks[:-1])]
    assert blocks[-1].stop == 300
    counts = [inputs.of_users(block).observed for block in blocks]
    assert sum(counts) == inputs.observed == round(0.05 * 300 * 200)
    for block, count in zip(blocks, counts, strict=True):
        assert count <= elements or block.stop - block.start == 1


def test_fingerprints_see_every_part_of_sparse_ratings() -> None:
    inputs = draw(case("power-law", layout="sparse", mask="none"))
    before = fingerprints(inputs)
    for part in parts(inputs.ratings):
        kept = int(part[-1])
        part[-1] = kept - 1
        after = fingerprints(inputs)
        assert {name for name in before if before[name] != after[name]} == {"ratings"}
        part[-1] = kept
    assert fingerprints(inputs) == before


def test_sparse_inputs_move_and_become_dense(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = draw(case("power-law", layout="sparse", mask="none"))
    elsewhere = module.moved(inputs)
    for part, old in zip(parts(elsewhere.ratings), parts(inputs.ratings), strict=True):
        assert torch.equal(part, old)
        assert part.data_ptr() != old.data_ptr()
    dense = inputs.dense()
    assert dense.dense() is dense
    assert torch.equal(dense.ratings, to_dense(inputs.ratings)[0])
    assert dense.user_factors is inputs.user_factors
    monkeypatch.setattr(module, "free_memory", lambda: 3 * 5 * 300 * 200 - 1)
    with pytest.raises(module.MatrixTooLarge, match=r"300 users × 200 items need 0\.0 GB as a matrix and a mask"):
        inputs.dense()


def test_the_crossover_is_that_of_the_kernels() -> None:
    assert {device: CROSSOVER[device] for device in ("cpu", "cuda")} == module.SPARSE_BELOW


def spec(**changes) -> CaseSpec:
    values = {"suite": "t", "size": (200, 100), "rank": 3, "density": 0.5, "layout": "auto", "ratings_dtype": "float32",
              "mask": "uint8", "data": "synthetic", "seed": 1}  # fmt: skip
    return CaseSpec.model_validate(values | changes)


@pytest.mark.parametrize(
    ("changes", "device", "layout"),
    [
        ({}, "cpu", "dense"),
        ({"density": 0.01}, "cpu", "sparse"),
        ({"density": 0.01}, "cuda", "sparse"),
        ({"density": 0.05}, "cuda", "dense"),
        ({"density": 0.01, "mask": "none"}, "cpu", "dense"),
        ({"density": 0.01, "data": "blocks"}, "cpu", "dense"),
        ({"density": 0.01, "layout": "dense"}, "cpu", "dense"),
        ({"layout": "sparse"}, "cuda", "sparse"),
        ({"size": (1 << 30, 1 << 20)}, "cuda", "sparse"),
    ],
    ids=str,
)
def test_the_layout_of_a_case(changes, device: str, layout: str) -> None:
    asked = spec(**changes)
    found = resolve(asked, device)
    assert found.layout == layout
    assert found.mask == ("none" if layout == "sparse" else asked.mask)
    assert asked.leads_to(found)
    assert not asked.leads_to(found.model_copy(update={"seed": 2}))
    assert spec(**changes | {"layout": layout}).leads_to(found)
    other = "dense" if layout == "sparse" else "sparse"
    assert not spec(**changes | {"layout": other}).leads_to(found)


@pytest.mark.parametrize("data", ["synthetic", "blocks", "power-law"])
@pytest.mark.parametrize("layout", ["dense", "sparse"])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_some_observed_ratings_are_0(data: str, layout: str, dtype: str) -> None:
    """What takes 0 for missing, or drops stored zeros, is wrong on every drawn case."""
    drawn = draw(case(data, layout=layout, ratings_dtype=dtype, mask="none" if layout == "sparse" else "uint8"))
    observed = drawn.ratings.values() if drawn.sparse else drawn.ratings[drawn.mask != 0]
    share = float((observed == 0).double().mean())
    assert 0.02 < share < 0.05
    star = 0.5 if dtype == "float32" else 1
    assert observed.unique().tolist() == [star * number for number in range(11)]


@pytest.mark.parametrize("data", ["synthetic", "blocks", "seed"])
def test_a_float_mask_holds_weights_and_changes_nothing_else(data: str) -> None:
    weighted, plain = draw(case(data, mask="float32")), draw(case(data))
    assert weighted.mask is not None
    assert plain.mask is not None
    assert weighted.mask.dtype == torch.float32
    assert torch.equal(weighted.mask != 0, plain.mask != 0)
    assert weighted.mask[weighted.mask != 0].unique().tolist() == [number / 4 for number in range(1, 9)]
    assert all(map(torch.equal, weighted[:6], plain[:6]))
    assert torch.equal(weighted.mask, draw(case(data, mask="float32")).mask)
