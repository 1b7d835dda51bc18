"""The model by hand."""

import pytest

from mfbench.inspect.devices import DEVICE_RATES
from mfbench.inspect.machine_code import Mix
from mfbench.inspect.model import Tile as ModelledTile
from mfbench.inspect.model import modelled, resident_blocks


def test_the_model_by_hand():
    mix = Mix(instructions=500, issued=500, matrix=96, vector=100, shared_load={4: 40}, fragment_load={16: 10},
              shared_store={8: 20}, atomic={4: 16})  # fmt: skip
    tile = ModelledTile(64, 64, 32, 4, 1, "tf32", 5.0)
    model = modelled(mix, tile, DEVICE_RATES["sm_80"])
    assert model.issue == 500 * 4 / 4
    assert model.vector == 100 * 128 / 64
    assert model.matrix == 3 * 2 * 64 * 64 * 32 / 1024
    assert model.shared == 40 * 4 + (160 + 160) * 128 / 128
    assert model.l2 == 64 * 32 * 8 / 64
    assert model.dram == 64 * 64 * 5 / 10.2
    assert (model.binds, model.dram_fraction) == ("dram", 1.0)
    assert model.issue_over_dram == model.issue / model.dram


@pytest.mark.parametrize(
    ("target", "warps", "registers", "shared", "blocks"),
    [("sm_80", 4, 255, 0, 2), ("sm_80", 4, 128, 0, 4), ("sm_80", 4, 32, 60 << 10, 2), ("sm_86", 4, 32, 0, 12),
     ("gfx942", 4, 512, 0, 1), ("gfx942", 4, 128, 0, 4)],
)  # fmt: skip
def test_resident_programs(target, warps, registers, shared, blocks):
    """By the makers' occupancy tables."""
    assert resident_blocks(DEVICE_RATES[target], warps, registers, shared) == blocks
