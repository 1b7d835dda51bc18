"""Drawing: blocks are whole, as many as asked for. The providers beside the fused one compute what the oracle does."""

from __future__ import annotations

import pytest
import torch

from mfbench.problems.cases import Case
from mfbench.problems.inputs import BLOCK, draw
from mfbench.providers import registry
from reference import oracle_loss_and_grads


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


@pytest.mark.parametrize("mask", ["uint8", "none"])
@pytest.mark.parametrize("name", ["fused-encoded", "tiled"])
def test_providers_beside_the_fused_one_compute_the_step(name: str, mask: str) -> None:
    inputs = draw(case("synthetic", mask=mask))
    loss, grads = registry.load(name).prepare(inputs)()
    exact_loss, exact_grads = oracle_loss_and_grads(*inputs)
    assert loss.item() == pytest.approx(float(exact_loss), rel=1e-5)
    for grad, exact in zip(grads, exact_grads, strict=True):
        torch.testing.assert_close(grad.double(), torch.as_tensor(exact).reshape(grad.shape), rtol=1e-4, atol=1e-2)
