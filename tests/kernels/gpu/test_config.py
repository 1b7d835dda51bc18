"""Launch choices: every tile is visited once, the workspace is bounded, unknown devices get a safe build."""

from types import SimpleNamespace

import pytest
import torch

from kernels.gpu import config, launch
from kernels.gpu.config import OLD_TILES, TARGETS, TILES, NotShipped, Target, deal, factor_columns, pick, shipped_rows
from kernels.gpu.tile_table import TABLE
from kernels.gpu.tiles import SPILLS, WIDTHS, Row, Tile

PRECISIONS = ("ieee", "tf32x3", "bf16x3", "tf32")


def use_tiles(monkeypatch, target, precision, *tiles, **named):
    """Give every width of a target and precision a row with these tiles."""
    rows = {width: Row(target, precision, width, *tiles, **named) for width in WIDTHS}
    monkeypatch.setitem(shipped_rows(), target, {precision: rows})


@pytest.mark.parametrize(
    ("rank", "columns"),
    [(1, (16, False)), (14, (16, False)), (15, (32, False)), (30, (32, False)), (31, (64, False)), (62, (64, False)),
     (63, (64, True)), (64, (64, True)), (65, (128, False)), (126, (128, False)), (127, (128, True)),
     (128, (128, True))],
)  # fmt: skip
def test_columns_of_the_factors(rank, columns):
    assert factor_columns(rank) == columns


@pytest.mark.parametrize(("rank", "columns"), [(129, 192), (192, 192), (193, 256), (256, 256), (257, 320)])
def test_wide_factors_go_in_chunks(monkeypatch, rank, columns):
    use_tiles(monkeypatch, "sm_90", "tf32", Tile(64, 64, 4))
    shipped_rows()["sm_90"]["tf32"]["wide"] = Row("sm_90", "tf32", "wide", Tile(64, 32, 4, chunk=64))
    build = pick(TARGETS["sm_90"], rank, "tf32", False)
    assert (build.BM, build.BN, build.num_warps, build.chunk, build.BK, build.sums) == (64, 32, 4, 64, columns, True)


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("multiprocessors", [1, 8, 132])
@pytest.mark.parametrize(
    ("m", "n"), [(1, 1), (64, 100_000), (100_000, 64), (65, 129), (4096, 4096), (3, 17), (999, 1001)]
)
def test_every_tile_is_visited_once(m, n, multiprocessors, deterministic):
    target = Target("sm_90", multiprocessors, 227 << 10)
    build = pick(target, 30, "tf32", deterministic)
    grid = deal(target, build, m, n, deterministic)
    assert grid.user_blocks * build.BM >= m > (grid.user_blocks - 1) * build.BM
    assert grid.tiles * build.BN >= n > (grid.tiles - 1) * build.BN
    blocks = sorted(block for group in range(grid.groups) for block in range(group, grid.user_blocks, grid.groups))
    assert blocks == list(range(grid.user_blocks))
    visited = []
    for split in range(grid.splits):
        first = split * grid.tiles_per_split
        count = min(grid.tiles_per_split, grid.tiles - first)
        assert count > 0
        for group in (0, grid.groups - 1):  # as staggered_split and scheduled_tile in fused.py
            start = group % count
            visited += [first + (step + start if step < count - start else step + start - count)
                        for step in range(count)]  # fmt: skip
    assert sorted(visited) == sorted(2 * list(range(grid.tiles)))


def test_few_users_fill_the_device():
    target = TARGETS["sm_90"]
    grid = deal(target, pick(target, 30, "tf32", False), 64, 1 << 20, deterministic=False)
    assert grid.groups * grid.splits >= 2 * target.multiprocessors


@pytest.mark.parametrize("rank", [8, 30, 62, 128, 256])
@pytest.mark.parametrize(("m", "n"), [(8192, 8192), (1 << 20, 1 << 16), (1 << 16, 1 << 20), (100, 1 << 22)])
@pytest.mark.parametrize("deterministic", [False, True])
def test_partial_gradients_stay_within_the_workspace(m, n, rank, deterministic):
    target = TARGETS["sm_90"]
    build = pick(target, rank, "tf32", deterministic)
    grid = deal(target, build, m, n, deterministic)
    row = build.BK * 4
    extra = (grid.splits - 1) * grid.user_blocks * build.BM * row
    if deterministic:
        extra += (grid.groups - 1) * grid.tiles * build.BN * row
    assert extra <= config.WORKSPACE_BYTES


def test_deterministic_grid_does_not_depend_on_the_number_of_multiprocessors():
    targets = Target("sm_90", 8, 227 << 10), Target("sm_90", 132, 227 << 10)
    builds = [pick(target, 30, "tf32", True) for target in targets]
    assert builds[0] == builds[1]
    small, large = (deal(target, builds[0], 3000, 5000, True) for target in targets)
    assert small == large


@pytest.mark.parametrize("tiles", [TILES, OLD_TILES], ids=["", "older Triton"])
def test_the_table_is_complete(tiles):
    for target, precisions in tiles.items():
        assert target in TARGETS
        for precision, rows in precisions.items():
            assert precision in config.ARITHMETIC
            assert tuple(rows) == WIDTHS, (target, precision)
    assert len(TABLE) == sum(len(rows) for precisions in tiles.values() for rows in precisions.values())


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("precision", [*PRECISIONS, "float64"])
@pytest.mark.parametrize("deterministic", [False, True])
def test_a_build_or_a_reason(name, precision, deterministic):
    for rank in (1, 14, 30, 62, 64, 100, 128, 256):
        parameter_bytes = 8 if precision == "float64" else 4
        try:
            build = pick(TARGETS[name], rank, precision, deterministic, parameter_bytes)
        except NotShipped:
            continue
        assert rank + (0 if build.sums else 2) <= build.BK
        assert all(size >= 16 and size & (size - 1) == 0 for size in (build.BM, build.BN, build.chunk or build.BK))
        assert build.options["num_warps"] in (1, 2, 4, 8)


@pytest.mark.parametrize(
    ("tiles", "choice", "expected"),
    [
        ({}, {}, (64, 32, 4)),
        ({}, {"deterministic": True}, (64, 32, 4)),
        ({}, {"aligned": False}, (64, 16, 4)),
        ({"fast": Tile(64, 16, 4)}, {"aligned": False}, (32, 16, 4)),
        ({"fast": Tile(16, 16, 4)}, {"aligned": False}, (16, 16, 4)),
        ({"exclusive": Tile(32, 32, 8)}, {"deterministic": True}, (32, 32, 8)),
        ({"exclusive": Tile(32, 32, 8)}, {"aligned": False}, (32, 16, 8)),
        ({"exclusive": Tile(32, 32, 8), "unaligned": Tile(16, 32, 4)}, {"aligned": False}, (16, 32, 4)),
        ({"unaligned": Tile(16, 32, 4)}, {"deterministic": True, "aligned": False}, (16, 32, 4)),
        ({"unaligned": Tile(16, 32, 4)}, {"packed": True}, (64, 32, 4)),
        ({"exclusive": Tile(32, 32, 8)}, {"packed": True, "deterministic": True}, (32, 32, 8)),
        ({"packed": Tile(32, 64, 4)}, {"packed": True}, (32, 64, 4)),
        ({"packed": Tile(32, 64, 4)}, {"packed": True, "aligned": False}, (32, 32, 4)),
        ({"unaligned": Tile(16, 32, 4), "packed": Tile(32, 64, 4)}, {"packed": True, "aligned": False}, (16, 32, 4)),
        ({}, {"weighted": True}, (64, 16, 4)),
        ({}, {"weighted": True, "aligned": False}, (32, 16, 4)),
        ({"unaligned": Tile(32, 16, 4)}, {"weighted": True, "aligned": False}, (32, 16, 4)),
        ({"exclusive": Tile(32, 32, 8), "unaligned": Tile(16, 32, 4)}, {"weighted": True}, (16, 32, 4)),
    ],
)
def test_a_row_has_tiles_for_five_cases(monkeypatch, tiles, choice, expected):
    use_tiles(monkeypatch, "sm_90", "tf32", **({"fast": Tile(64, 32, 4)} | tiles))
    build = pick(TARGETS["sm_90"], 30, "tf32", **({"deterministic": False} | choice))
    assert (build.BM, build.BN, build.num_warps) == expected


@pytest.mark.parametrize("aligned", [True, False])
def test_a_case_that_spills_is_not_shipped(monkeypatch, aligned):
    use_tiles(monkeypatch, "sm_90", "tf32", Tile(64, 32, 4), exclusive=SPILLS)
    pick(TARGETS["sm_90"], 30, "tf32", deterministic=False)
    with pytest.raises(NotShipped, match="rank 30 at precision tf32: every tile that was tried spills registers"):
        pick(TARGETS["sm_90"], 30, "tf32", deterministic=True, aligned=aligned)


@pytest.mark.parametrize(
    ("requests", "options"),
    [
        ({}, None),
        ({"resident": 3}, "--minnctapersm 3"),
        ({"frugal": True}, "--register-usage-level 0"),
        ({"resident": 2, "frugal": True}, "--minnctapersm 2 --register-usage-level 0"),
    ],
)
@pytest.mark.parametrize(("num_warps", "chunk"), [(4, 0), (8, 32)])
def test_requests_to_the_assembler(monkeypatch, num_warps, chunk, requests, options):
    use_tiles(monkeypatch, "sm_86", "ieee", Tile(64, 32, num_warps, chunk, **requests))
    for name in ("sm_86", "xpu"):  # xpu uses the same rows and a different assembler
        build = pick(Target(name, 8, 99 << 10), 200, "ieee", False)
        assert (build.BM, build.BN, build.num_warps) == (64, 32, num_warps)
        assert build.options.get("ptx_options") == (options if name == "sm_86" else None)


@pytest.mark.parametrize(
    ("name", "shared_kib", "table"),
    [("sm_87", 163, "sm_86"), ("sm_103", 227, "sm_100"), ("sm_121", 99, "sm_86"), ("sm_130", 64, "sm_86")],
)
def test_unknown_devices_get_a_safe_build(name, shared_kib, table):
    unknown = Target(name, 20, shared_kib << 10)
    for precision in shipped_rows()[table]:
        parameter_bytes = 8 if precision == "float64" else 4
        builds = [pick(target, 30, precision, False, parameter_bytes) for target in (unknown, TARGETS[table])]
        assert builds[0] == builds[1]


@pytest.mark.parametrize(
    ("name", "rank", "precision", "reason"),
    [
        ("sm_75", 30, "ieee", "sm_75: the oldest is sm_80"),
        ("gfx1030", 30, "ieee", "gfx1030: no build was checked for it"),
        ("sm_90", 1025, "ieee", "rank 1025: the largest is 1024"),
        ("gfx942", 30, "tf32x3", "precision tf32x3: hip has"),
        ("xpu", 30, "tf32", "precision tf32: xpu has ieee on this device"),
    ],
)
def test_what_is_not_shipped(name, rank, precision, reason):
    with pytest.raises(NotShipped, match=reason):
        pick(Target(name, 20, 64 << 10), rank, precision, False)


@pytest.mark.parametrize(
    ("hip", "properties", "expected"),
    [
        (None, {"major": 9, "minor": 0, "multi_processor_count": 132, "shared_memory_per_block_optin": 232448},
         Target("sm_90", 132, 232448)),
        (None, {"major": 12, "minor": 0, "multi_processor_count": 170, "shared_memory_per_block_optin": 101376},
         Target("sm_120", 170, 101376)),
        ("6.4", {"gcnArchName": "gfx942:sramecc+:xnack-", "multi_processor_count": 304}, Target("gfx942", 304, 65536)),
    ],
)  # fmt: skip
def test_target_of_a_device(monkeypatch, hip, properties, expected):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(**properties))
    monkeypatch.setattr(torch.version, "hip", hip)
    launch.target_of.cache_clear()
    try:
        assert launch.target_of(torch.device("cuda", 0)) == expected
    finally:
        launch.target_of.cache_clear()


def test_wide_factors_are_chunked_everywhere():
    """A tile that holds all columns would compile differently for every width above 128."""
    for row in TABLE:
        tiles = [tile for tile in (row.fast, row.exclusive, row.unaligned, row.packed) if tile not in (None, SPILLS)]
        assert row.width != "wide" or all(tile.chunk for tile in tiles), row


@pytest.mark.parametrize("target", [name for name in TARGETS if name.startswith("sm_")])
@pytest.mark.parametrize(
    "form", [(True, False, False), (False, False, False), (True, True, False), (True, False, True)]
)
def test_tf32x3_sums_few_terms_between_additions_that_round(target, form):
    """Tensor cores truncate after each step of 4 products, or of 8 from Hopper on: docs/kernel.md has the bound."""
    columns = 32 if target in ("sm_80", "sm_86", "sm_89") else 64
    for rank in (8, 30, 62, 64, 100, 128, 256):
        for deterministic in (False, True):
            build = pick(TARGETS[target], rank, "tf32x3", deterministic, 4, *form)
            assert 0 < (build.chunk or build.depth) <= columns
            assert max(build.BM, build.BN) <= 64
            assert build.BK % (build.chunk or build.depth) == 0


def test_other_precisions_take_all_columns_in_one_product(monkeypatch):
    monkeypatch.setattr(config, "is_old", lambda: False)  # an older Triton has no build of bf16x3 there
    for precision in ("ieee", "tf32", "bf16x3"):
        assert pick(TARGETS["sm_80"], 126, precision, False).depth in (0, 128)


@pytest.mark.parametrize(
    ("name", "precision", "rank", "adjacent"),
    [
        ("sm_100", "tf32", 30, True),
        ("sm_103", "bf16x3", 256, True),
        ("sm_100", "bf16x3", 128, False),  # 32 users: mma.sync
        ("sm_100", "ieee", 30, False),
        ("sm_120", "tf32", 30, False),
        ("sm_90", "tf32", 30, False),
        ("gfx942", "bf16x3", 30, False),
    ],
)
def test_adjacent_items_are_summed_of_results_in_tensor_memory(name, precision, rank, adjacent):
    assert pick(Target(name, 100, 227 << 10), rank, precision, False).adjacent is adjacent
