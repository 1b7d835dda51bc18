"""`mfbench inspect`: machine code counted right, a model that follows from it, and faults that are seen."""

import dataclasses
import json
import re
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from mfbench.inspect.devices import DEVICE_RATES
from mfbench.inspect.machine_code import Mix, compare_and_swap, main_loop
from mfbench.inspect.model import Tile as ModelledTile
from mfbench.inspect.model import modelled, resident_blocks
from tests.mfbench.cli_runner import command, mfbench, mfbench_here

pytest.importorskip("triton", reason="Triton is not installed")
from kernels.gpu import config, tile_table
from kernels.gpu.config import TARGETS, TILES
from kernels.gpu.tiles import SPILLS, WIDTHS, Row, Tile
from mfbench.inspect import search
from mfbench.inspect.builds import ENCODINGS, MODES, PRECISIONS, RANKS, _faults, _traffic, examine, examine_all, specs
from mfbench.inspect.document import Build, NotBuilt, Spec

SASS = """
        /*0000*/                   LDG.E.128 R4, desc[UR42][R4.64] ;
.L_x_0:
        /*0010*/                   FFMA R1, R2, R3, R1 ;
        /*0020*/               @P0 BRA `(.L_x_0) ;
.L_x_1:
        /*0030*/                   LDGSTS.E.BYPASS.128 [R157], desc[UR42][R16.64], P1 ;
        /*0040*/                   LDGSTS.E.64 [R19+0xc000], desc[UR42][R24.64], P1 ;
        /*0050*/                   LDG.E.U8 R4, desc[UR42][R4.64] ;
        /*0060*/                   LDG.E.U16.CONSTANT R4, desc[UR42][R4.64] ;
        /*0070*/                   LDSM.16.MT88.4 R4, [R5] ;
        /*0080*/                   LDS R4, [R5] ;
        /*0090*/                   HMMA.1688.F32.TF32 R4, R5, R6, R7 ;
        /*00a0*/                   HMMA.1688.F32.TF32 R4, R5, R6, R7 ;
        /*00b0*/                   FADD R4, R5, R6 ;
        /*00c0*/                   FSEL R4, R5, R6, P0 ;
        /*00d0*/              @!UP0 REDG.E.ADD.F32x4.FTZ.RN.STRONG.GPU desc[UR42][R36.64], R40 ;
        /*00e0*/                   RED.E.ADD.F32.FTZ.RN.STRONG.GPU [R42.64], R26 ;
        /*00f0*/                   SHFL.BFLY PT, R30, R30, R153, 0x1f ;
        /*0100*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;
        /*0110*/                   BRA `(.L_x_2) ;
.L_x_3:
        /*0120*/               @P0 BRA `(.L_x_1) ;
        /*0130*/                   EXIT ;
.L_x_2:
        /*0140*/                   HMMA.1688.F32.TF32 R4, R5, R6, R7 ;
        /*0150*/                   BRA `(.L_x_3) ;
.L_x_4:
        /*0160*/                   BRA `(.L_x_4);
"""

AMD = """
\ts_branch .LBB0_1
.LBB0_1:
\tbuffer_load_dwordx4 v[0:3], v4, s[0:3], 0 offen
\tbuffer_load_ubyte v0, v4, s[0:3], 0 offen
\tds_read2_b32 v[0:1], v2 offset1:8
\tds_read_b64_tr_b16 v[0:1], v2
\tds_write_b16_d16_hi v2, v3
\tv_mfma_f32_16x16x4_f32 v[0:3], v4, v5, v[0:3]
\tv_pk_add_f32 v[0:1], v[2:3], v[4:5]
\tv_cndmask_b32_e64 v0, v1, v2, s[0:1]
\tbuffer_atomic_add_f32 v0, v1, s[0:3], 0 offen
\ts_barrier
\ts_cbranch_scc1 .LBB0_1
\ts_endpgm
"""

NESTED = """
.L_x_0:
        /*0000*/                   LDG.E.64 R4, desc[UR42][R4.64] ;
.L_x_1:
        /*0010*/                   HMMA.1688.F32.TF32 R4, R5, R6, R7 ;
        /*0020*/               @P0 BRA `(.L_x_1) ;
.L_x_2:
        /*0030*/                   HMMA.1688.F32.TF32 R4, R5, R6, R7 ;
        /*0040*/                   HMMA.1688.F32.TF32 R4, R5, R6, R7 ;
        /*0050*/               @P0 BRA `(.L_x_2) ;
        /*0060*/               @P0 BRA `(.L_x_0) ;
        /*0070*/                   EXIT ;
"""


def test_mix_of_nvidia_code():
    assert main_loop(SASS) == Mix(
        instructions=16, issued=16, matrix=2, vector=1,
        load={1: 1, 2: 1, 8: 1, 16: 1}, load_once={1: 1, 2: 1, 8: 1, 16: 1}, atomic={4: 1, 16: 1},
        shared_load={4: 1}, fragment_load={16: 1}, shuffle=1, barrier=1,
    )  # fmt: skip


def test_mix_of_amd_code():
    assert main_loop(AMD) == Mix(
        instructions=11, issued=3, matrix=1, vector=1, load={1: 1, 16: 1},
        load_once={1: 1, 16: 1}, atomic={4: 1}, shared_load={8: 1},
        fragment_load={8: 1}, shared_store={2: 1}, barrier=1,
    )  # fmt: skip


def test_loops_inside_the_main_loop_count_as_often_as_they_run():
    mix = main_loop(NESTED, chunks=4)
    assert (mix.instructions, mix.matrix, mix.load) == (2 + 4 * 5, 4 * 3, {8: 1})


def test_no_loop():
    with pytest.raises(ValueError, match="expected a loop with arithmetic"):
        main_loop("        /*0000*/                   FADD R4, R5, R6 ;\n        /*0010*/    EXIT ;\n")


@pytest.mark.parametrize(
    ("line", "expected"),
    [("ATOM.E.CAS.STRONG.GPU PT, R2, [R2], R4, R5 ;", True), ("ATOMG.E.CAS R2, [R2]", True),
     ("\tbuffer_atomic_cmpswap v[0:1], v2", True), ("RED.E.ADD.F32 [R2], R3 ;", False),
     ("\tbuffer_atomic_add_f32 v0", False)],
)  # fmt: skip
def test_compare_and_swap_is_seen(line, expected):
    assert compare_and_swap(line) is expected


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


def spec(target="sm_80", rank=30, precision="tf32", encoding="float32+uint8", mode="fast"):
    return Spec(target, rank, precision, encoding, mode)


def with_tile(monkeypatch, target, precision, tile):
    monkeypatch.setitem(TILES[target], precision, {w: Row(target, precision, w, tile) for w in WIDTHS})


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("target", ["sm_80", pytest.param("sm_90", marks=pytest.mark.slow), "gfx942"])
def test_shipped_builds_are_clean(target, encoding):
    build = examine(spec(target, encoding=encoding, mode=MODES[len(encoding) % 2]))
    assert isinstance(build, Build)
    assert build.ok, build.reason
    assert build.mix.matrix >= 20
    assert build.blocks >= 1
    users, items = map(int, build.tile.split("x")[:2])
    bytes_a_clock = DEVICE_RATES[target].dram_bytes
    assert build.modelled.dram == pytest.approx(users * items * ENCODINGS[encoding].bytes / bytes_a_clock)


@pytest.mark.parametrize(
    ("target", "mode", "most"),
    [("sm_80", "fast", 1.05), ("sm_90", "fast", 1.05), ("gfx942", "fast", 1.07), ("sm_90", "deterministic", 1.2)],
)
def test_a_large_step_moves_little_more_than_its_ratings(target, mode, most):
    assert 1 < _traffic(spec(target, 32, "tf32", mode=mode)) <= most


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
        ("sm_86", "tf32", Tile(128, 128, 8), r"bytes of shared memory, the limit is 101376"),
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
    assert list(_faults(spec(), [launch], "", mix, tile, 1 << 17)) == [
        "no matrix instruction in the main loop",
        "ratings are loaded in vectors of less than 8 bytes a thread",
    ]


def test_what_is_not_shipped_says_why():
    found = examine(spec("gfx950", precision="tf32"))
    assert isinstance(found, NotBuilt)
    assert not found.shipped
    assert "not shipped for gfx950: precision tf32" in found.reason


@pytest.mark.slow
def test_command(tmp_path):
    """The table, the document, and a comparison of the document with a changed one."""
    options = ["inspect", "--target", "sm_80", "--precision", "tf32,ieee", "--jobs", "1"]
    printed = mfbench(*options, cwd=tmp_path)
    assert printed.returncode == 0, printed.stderr
    assert "2 builds are clean, 0 are not" in printed.stdout
    assert "Modelled" in printed.stdout
    assert all(len(line) <= 80 for line in printed.stdout.splitlines())
    document = json.loads(mfbench(*options, "--json", cwd=tmp_path).stdout)
    before = document["builds"][0]
    before["registers"] += 7
    other = tmp_path / "before.json"
    other.write_text(json.dumps(document))
    compared = mfbench(*options, "--compare", other, cwd=tmp_path)
    assert compared.returncode == 0
    assert "1 of 2 builds changed" in compared.stdout
    assert f"registers {before['registers']} → {before['registers'] - 7}\n" in compared.stdout


def test_ctrl_c_ends_what_compiles(tmp_path):
    options = ["inspect", "--target", "sm_80,sm_90", "--rank", "8,256", "--jobs", "2"]
    process = subprocess.Popen(command(*options), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end, compiling = time.monotonic() + 60, []
    while len(compiling) < 3:  # two processes, and one that watches over what they share
        assert time.monotonic() < end
        time.sleep(0.1)
        compiling = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 130
    _, left = psutil.wait_procs(compiling, timeout=10)
    assert left == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target", "sm_75"], "--target: expected names of sm_80, "),
        (["--rank", "0"], "--rank: expected whole numbers from 1 to 1048576, got '0'"),
        (["--compare", "missing.json"], "missing.json: No such file"),
        (["--compare", __file__], "expected the output of `mfbench inspect --json`"),
    ],
)
def test_usage_errors(options, message, monkeypatch, capsys):
    assert mfbench_here(monkeypatch, "inspect", *options) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_shipped_build_that_fails_is_exit_code_1(monkeypatch, capsys):
    from mfbench.commands import inspect

    with_tile(monkeypatch, "sm_80", "ieee", Tile(128, 64, 4))
    chosen = {"target": ["sm_80"], "rank": None, "precision": ["ieee"], "encoding": None, "mode": None}
    assert inspect.command(chosen, False, 1, None, as_json=False) == 1
    assert "failed: sm_80 30 ieee float32+uint8 fast: fused_step spills" in capsys.readouterr().out


def test_all_leaves_out_the_fast_mode_of_odd_rows_alone():
    from mfbench.commands.inspect import _specs

    chosen = dict.fromkeys(("target", "rank", "precision", "encoding", "mode"))
    every = set(specs(TARGETS, RANKS, PRECISIONS, ENCODINGS, MODES))
    left_out = every - set(_specs(chosen, True))
    assert left_out == {spec for spec in every if ENCODINGS[spec.encoding].demanding and spec.mode == "fast"}
    fast = _specs({**chosen, "mode": ["fast"]}, True)
    assert set(fast) == {spec for spec in every if spec.mode == "fast"}


@pytest.mark.slow
def test_builds_come_in_the_order_they_were_wanted():
    """Ranks of one width are compiled together."""
    wanted = specs(["sm_80"], [16, 30], ["tf32"], ["float32+uint8", "float32-nan"], ["fast"])
    ended: list[int] = []
    found = list(examine_all(wanted, 2, lambda: ended.append(1)))
    assert [build.spec for build in found] == wanted
    assert len(ended) == len(wanted)
    assert found[0].mix == found[2].mix != found[1].mix


def rows_in(text):
    namespace = {}
    exec(text, namespace)
    return namespace["TABLE"]


def test_the_table_is_what_search_writes():
    """The file is reproduced from its rows in any order of widths, and every field comes back from the text."""
    first, *others = tile_table.TABLE
    assert search.table_source([*others, first]) == Path(tile_table.__file__).read_text()
    full = Row(
        "sm_80", "ieee", "16", Tile(64, 32, 4, chunk=64, resident=2, frugal=True), SPILLS, packed=Tile(16, 16, 8)
    )
    rows = [full, Row("sm_80", "ieee", "32", SPILLS), *others[1:]]
    assert rows_in(search.table_source(rows)) == rows


def test_search_writes_the_clean_tiles_with_the_least_modelled_time(monkeypatch, tmp_path):
    """With a stand-in for the compiler: large tiles spill, in deterministic mode smaller ones too."""

    def examine(spec):
        tile = TILES[spec.target][spec.precision]["32"].fast
        ratings = tile.BM * tile.BN
        clean = (ratings < 64 * 64 or tile.frugal) if spec.mode == "fast" else ratings <= 32 * 32
        clocks = SimpleNamespace(binds="l2", l2=ratings * {(64, 64): 3.0, (64, 32): 2.0}.get((tile.BM, tile.BN), 2.5))
        return Build.model_construct(ok=clean, tile=f"{tile.BM}x{tile.BN}x{tile.num_warps}", blocks=2, modelled=clocks)

    written = tmp_path / "tile_table.py"
    monkeypatch.setattr(search, "examine", examine)
    monkeypatch.setattr(tile_table, "__file__", str(written))
    before = TILES["sm_80"]["tf32x3"]["32"]
    assert before.unaligned is not None
    expected = dataclasses.replace(before, fast=Tile(64, 32, 4), exclusive=Tile(32, 32, 4))
    search.main(["sm_80", "tf32x3", "32"])
    assert rows_in(written.read_text()) == [expected if row == before else row for row in tile_table.TABLE]
    assert TILES["sm_80"]["tf32x3"]["32"] is before
