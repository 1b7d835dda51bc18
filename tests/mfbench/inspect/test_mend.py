"""Faulty tiles give way to clean ones, and the table gets the rows."""

import dataclasses

import pytest

pytest.importorskip("triton", reason="Triton is not installed")
from kernels.gpu import tile_table
from kernels.gpu.config import shipped_rows, width_of
from kernels.gpu.tiles import SPILLS, Row, Tile
from mfbench.inspect import mend, search
from mfbench.inspect.builds import ENCODINGS
from mfbench.inspect.document import Build, NotBuilt

ROW = Row("sm_80", "tf32", "64", Tile(64, 64, 4), exclusive=Tile(64, 32, 4))


@pytest.fixture
def compiler(monkeypatch):
    """Let a function of tile and configuration decide what is clean; return the configurations that it was asked."""

    def install(is_clean):
        asked = []

        def examine(spec):
            encoding = ENCODINGS[spec.encoding]
            row = shipped_rows()[spec.target][spec.precision][width_of(spec.rank)]
            tile = row.tile(
                spec.mode == "deterministic", not encoding.odd, encoding.form == "bits", encoding.form == "float32"
            )
            asked.append(spec)
            if tile == SPILLS:
                return NotBuilt(**spec._asdict(), shipped=False, reason="not shipped")
            return Build.model_construct(ok=is_clean(tile, spec))

        monkeypatch.setattr(mend, "examine", examine)
        monkeypatch.setattr(mend, "CLEAN", {})
        return asked

    return install


def test_a_clean_row_stays(compiler):
    asked = compiler(lambda tile, spec: True)
    assert mend.mend(ROW) == ROW
    assert {spec.encoding for spec in asked} == set(ENCODINGS)
    assert {spec.mode for spec in asked} == {"fast", "deterministic"}
    assert shipped_rows()["sm_80"]["tf32"]["64"] != ROW  # the table in use is as before


def test_stronger_requests_come_before_smaller_tiles(compiler):
    compiler(lambda tile, spec: spec.mode == "fast" or tile.resident == 3 or ENCODINGS[spec.encoding].demanding)
    assert mend.mend(ROW) == dataclasses.replace(ROW, exclusive=Tile(64, 32, 4, resident=3))  # also of packed masks


@pytest.mark.parametrize(
    ("encoding", "field", "mended"),
    [
        ("float32-nan", "fast", Tile(64, 32, 4)),
        ("uint8-bits", "packed", Tile(64, 32, 4)),
        ("odd-float32+uint8", "unaligned", Tile(64, 16, 4)),
    ],
)
def test_only_the_kind_of_a_faulty_build_changes(compiler, encoding, field, mended):
    compiler(lambda tile, spec: spec.encoding != encoding or tile.BM * tile.BN <= mended.BM * mended.BN)
    row = dataclasses.replace(ROW, exclusive=mended if field == "fast" else None, unaligned=Tile(64, 64, 4))
    assert mend.mend(row) == dataclasses.replace(row, **{field: mended})


def test_a_kind_that_is_never_clean_is_not_shipped(compiler):
    compiler(lambda tile, spec: spec.encoding != "odd-uint8-code")
    assert mend.mend(ROW) == dataclasses.replace(ROW, unaligned=SPILLS)


@pytest.mark.parametrize("old", [False, True])
def test_the_table_of_the_installed_triton_gets_the_rows(compiler, monkeypatch, tmp_path, capsys, old):
    written = tmp_path / "tile_table.py"
    monkeypatch.setattr(tile_table, "__file__", str(written))
    monkeypatch.setattr(search, "is_old", lambda: old)
    before = shipped_rows()["sm_80"]["tf32"]["16"]
    compiler(lambda tile, spec: spec.mode == "fast" or tile.frugal)
    mend.main(["sm_80", "--precision", "tf32", "--width", "16"])
    namespace = {}
    exec(written.read_text(), namespace)
    table, original = (namespace["OLD_TABLE"], tile_table.OLD_TABLE) if old else (namespace["TABLE"], tile_table.TABLE)
    changed = [row for row in table if row not in original]
    assert [(row.target, row.precision, row.width) for row in changed] == [("sm_80", "tf32", "16")]
    assert changed[0].exclusive == dataclasses.replace(before.exclusive or before.fast, frugal=True)
    assert "sm_80 tf32 16: Row(" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("target", "said"),
    [("sm_91", "got 'sm_91'; did you mean 'sm_90'?"), ("sm_89", "target: sm_89 has no rows in the table")],
)
def test_a_target_without_rows_is_named(capsys, target, said):
    with pytest.raises(SystemExit):
        mend.main([target])
    assert said in " ".join(capsys.readouterr().err.split())


def test_the_shipped_table_has_each_row_once():
    for table in (tile_table.TABLE, tile_table.OLD_TABLE):
        keys = [(row.target, row.precision, row.width) for row in table]
        assert len(keys) == len(set(keys))
