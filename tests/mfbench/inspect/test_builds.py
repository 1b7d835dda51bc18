"""Shipped builds are clean, and faults of a build are found."""

import itertools
import re
from types import SimpleNamespace

import pytest

from mfbench.inspect.devices import DEVICE_RATES
from mfbench.inspect.machine_code import Mix
from mfbench.inspect.model import Tile as ModelledTile

pytest.importorskip("triton", reason="Triton is not installed")
from kernels.gpu import config
from kernels.gpu.config import TARGETS
from kernels.gpu.tiles import Tile
from mfbench.inspect.builds import (
    ENCODINGS,
    MODES,
    MOST_TOGETHER,
    PRECISIONS,
    RANKS,
    compiled_together,
    examine,
    examine_all,
    faults_of,
    specs,
)
from mfbench.inspect.document import Build, NotBuilt
from mfbench.inspect.sparse import SPARSE_ENCODINGS
from tests.mfbench.inspect.configurations import spec, with_tile


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("target", ["sm_80", pytest.param("sm_90", marks=pytest.mark.slow), "gfx942"])
def test_shipped_builds_are_clean(target, encoding):
    build = examine(spec(target, encoding=encoding, mode=MODES[len(encoding) % 2]))
    assert isinstance(build, Build)
    assert build.ok, build.reason
    assert build.mix.matrix >= 12  # three products, of several instructions each
    assert build.blocks >= 1
    users, items = map(int, build.tile.split("x")[:2])
    bytes_a_clock = DEVICE_RATES[target].dram_bytes
    assert build.modelled.dram == pytest.approx(users * items * ENCODINGS[encoding].bytes / bytes_a_clock)


def test_every_launch_of_a_step_is_recorded():
    build = examine(spec())
    assert [launch.name for launch in build.launches] == ["prepare", "fused_step", "finish"]
    assert all(launch.registers > 0 == launch.stack_bytes for launch in build.launches)
    step = build.launches[1]
    assert (step.registers, step.shared_bytes) == (build.registers, build.shared_bytes)
    assert step.warps == int(build.tile.split("x")[2])
    assert [launch.name for launch in build.beside] == ["prepare", "finish"]


def test_chunks_are_counted():
    """Three products of 2 * users * items * columns operations, whatever the number of chunks."""
    build = examine(spec(rank=256))
    assert build.ok, build.reason
    users, items = map(int, build.tile.split("x")[:2])
    if "/" in build.tile:
        per_warp = 16 * 8 * 8  # multiply-adds of one m16n8k8
        assert build.mix.matrix * per_warp * int(build.tile.split("x")[2].split("/")[0]) >= 3 * users * items * 256


@pytest.mark.parametrize(
    ("target", "precision", "tile", "reason"),
    [
        pytest.param(
            "sm_80", "ieee", Tile(128, 64, 4), r"fused_step spills: \d+ bytes of stack a thread", marks=pytest.mark.slow
        ),
        ("sm_86", "tf32", Tile(256, 64, 8), r"bytes of shared memory, the limit is 101376"),
        ("gfx942", "ieee", Tile(128, 128, 4), "fused_step spills"),
    ],
)
def test_builds_over_a_limit_are_seen(monkeypatch, target, precision, tile, reason):
    with_tile(monkeypatch, target, precision, tile)
    build = examine(spec(target, 62, precision))
    assert not build.ok
    assert build.reason
    assert re.search(reason, build.reason)


def test_compare_and_swap_loops_are_seen(monkeypatch):
    monkeypatch.setattr(config, "WITHOUT_ATOMICS", ())
    build = examine(spec("gfx90a", precision="ieee"))
    assert not build.ok
    assert "compare-and-swap" in build.reason


def test_narrow_loads_and_missing_matrix_instructions_are_seen():
    mix = Mix(instructions=100, issued=100, vector=50, load_once={4: 64, 16: 8})
    tile = ModelledTile(64, 64, 32, 4, 1, "tf32", 5.0)
    launch = SimpleNamespace(name="fused_step", stack_bytes=0, shared_bytes=0, constants={})
    assert list(faults_of(spec(), [launch], "", mix, tile, 1 << 17)) == [
        "no matrix instruction in the main loop",
        "ratings are loaded in vectors of less than 8 bytes a thread",
    ]


def test_what_is_not_shipped_says_why():
    found = examine(spec("gfx950", precision="tf32"))
    assert isinstance(found, NotBuilt)
    assert not found.shipped
    assert "not shipped for gfx950: precision tf32" in found.reason


def test_all_leaves_out_the_fast_mode_of_odd_rows_alone():
    from mfbench.commands.inspect import chosen_specs

    chosen = dict.fromkeys(("target", "rank", "precision", "encoding", "mode"))
    every = set(specs(TARGETS, RANKS, PRECISIONS, (*ENCODINGS, *SPARSE_ENCODINGS), MODES))
    left_out = every - set(chosen_specs(chosen, True))
    demanding = {name for name, encoding in ENCODINGS.items() if encoding.demanding}
    assert left_out == {spec for spec in every if spec.encoding in demanding and spec.mode == "fast"}
    fast = chosen_specs({**chosen, "mode": ["fast"]}, True)
    assert set(fast) == {spec for spec in every if spec.mode == "fast"}


def test_groups_hold_one_target_and_all_ranks_of_a_width():
    wanted = specs(["sm_80", "gfx942"], [16, 30, 64], ["ieee"], (*ENCODINGS, "sparse-code"), ["fast", "deterministic"])
    groups = compiled_together(wanted, 1)
    assert sorted(itertools.chain.from_iterable(groups)) == sorted(wanted)
    assert max(map(len, groups)) == MOST_TOGETHER
    assert all(len({spec.target for spec in group}) == 1 for group in groups)
    for group in groups:
        ranks = {spec.rank for spec in group}
        assert ({16, 30} <= ranks) == bool({16, 30} & ranks)
    assert [len(group) for group in compiled_together(wanted[:3], 2)] == [1, 1, 1]


@pytest.mark.slow
def test_builds_come_in_the_order_they_were_wanted():
    """Ranks of one width are compiled together."""
    wanted = specs(["sm_80"], [16, 30], ["tf32"], ["float32+uint8", "float32-nan"], ["fast"])
    ended: list[int] = []
    found = list(examine_all(wanted, 2, lambda: ended.append(1)))
    assert [build.spec for build in found] == wanted
    assert len(ended) == len(wanted)
    assert found[0].mix == found[2].mix != found[1].mix
