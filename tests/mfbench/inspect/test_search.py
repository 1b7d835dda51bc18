"""The search for tiles writes the table that is shipped."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("triton", reason="Triton is not installed")
from kernels.gpu import tile_table
from kernels.gpu.config import shipped_rows
from kernels.gpu.tiles import SPILLS, Row, Tile
from mfbench.inspect import search
from mfbench.inspect.document import Build


def rows_in(text):
    namespace = {}
    exec(text, namespace)
    return namespace["TABLE"]


def test_the_table_is_what_search_writes():
    """The file is reproduced from its rows in any order of widths, and every field comes back from the text."""
    first, *others = tile_table.TABLE
    assert search.table_source([*others, first], tile_table.OLD_TABLE[::-1]) == Path(tile_table.__file__).read_text()
    full = Row(
        "sm_80", "ieee", "16", Tile(64, 32, 4, chunk=64, resident=2, frugal=True), SPILLS, packed=Tile(16, 16, 8)
    )
    rows = [full, Row("sm_80", "ieee", "32", SPILLS), *others[1:]]
    assert rows_in(search.table_source(rows, [])) == rows


def test_search_writes_the_clean_tiles_with_the_least_modelled_time(monkeypatch, tmp_path):
    """With a stand-in for the compiler: large tiles spill, in deterministic mode smaller ones too."""

    def examine(spec):
        tile = shipped_rows()[spec.target][spec.precision]["32"].fast
        ratings = tile.BM * tile.BN
        clean = (ratings < 64 * 64 or tile.frugal) if spec.mode == "fast" else ratings <= 32 * 32
        clocks = SimpleNamespace(binds="l2", l2=ratings * {(64, 64): 3.0, (64, 32): 2.0}.get((tile.BM, tile.BN), 2.5))
        return Build.model_construct(ok=clean, tile=f"{tile.BM}x{tile.BN}x{tile.num_warps}", blocks=2, modelled=clocks)

    written = tmp_path / "tile_table.py"
    monkeypatch.setattr(search, "examine", examine)
    monkeypatch.setattr(tile_table, "__file__", str(written))
    before = shipped_rows()["sm_80"]["tf32x3"]["32"]
    assert before.unaligned is not None
    expected = dataclasses.replace(before, fast=Tile(64, 32, 4), exclusive=Tile(32, 32, 4))
    search.main(["sm_80", "tf32x3", "32"])
    assert rows_in(written.read_text()) == [expected if row == before else row for row in tile_table.TABLE]
    assert shipped_rows()["sm_80"]["tf32x3"]["32"] is before


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--help"], 0, "comma-separated: 16, 32, 64"),
        ([], 2, "the following arguments are required: target, precision, width"),
        (["sm_91", "ieee", "32"], 2, "got 'sm_91'; did you mean 'sm_90'?"),
        (["sm_90", "ieee,tf32x4", "32"], 2, "got 'tf32x4'; did you mean 'tf32x3'?"),
        (["sm_90", "ieee", "32,17"], 2, "expected one of 16, 32, 64"),
    ],
)
def test_arguments_that_do_not_fit_start_no_search(monkeypatch, capsys, arguments, code, said):
    monkeypatch.setattr(search, "search", lambda *_: pytest.fail("searched"))
    with pytest.raises(SystemExit) as left:
        search.main(arguments)
    assert left.value.code == code
    output = capsys.readouterr()
    assert said in " ".join((output.out + output.err).split())
