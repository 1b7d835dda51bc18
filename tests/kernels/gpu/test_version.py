"""What is left out with an older Triton; `.ci/triton-versions` runs the kernels' tests under both."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernels.gpu import config, sparse_config, version
from kernels.gpu.tile_table import OLD_TABLE, TABLE


@pytest.mark.parametrize(("installed", "old"), [("3.6.0", True), ("3.8.1+git", True), ("3.9.0", False), ("4.0", False)])
def test_versions_are_compared_as_numbers(installed: str, old: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version, "version", lambda name: installed)
    version.is_old.cache_clear()
    assert version.is_old() == old
    version.is_old.cache_clear()


@pytest.mark.parametrize("old", [False, True])
def test_an_older_triton_has_rows_of_its_own(old: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "is_old", lambda: old)
    rows = config.shipped_rows()
    replaced = {(row.target, row.precision, row.width): row for row in OLD_TABLE}
    assert replaced
    for row in TABLE:
        expected = replaced.get((row.target, row.precision, row.width), row) if old else row
        assert rows[row.target][row.precision][row.width] == expected
    if old:
        with pytest.raises(config.NotShipped, match="every tile that was tried spills registers"):
            config.pick(config.TARGETS["sm_100"], 128, "ieee", True)
        config.pick(config.TARGETS["sm_100"], 128, "ieee", False)


def test_float64_is_not_shipped_for_matrix_units_that_triton_fails_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "is_old", lambda: True)
    for target in version.FLOAT64_UNITS:
        with pytest.raises(config.NotShipped, match="this version of Triton fails to compile them"):
            config.pick(config.TARGETS[target], 30, "ieee", False, parameter_bytes=8)
        config.pick(config.TARGETS[target], 30, "ieee", False)
    config.pick(config.TARGETS["sm_86"], 30, "ieee", False, parameter_bytes=8)
    monkeypatch.setattr(config, "is_old", lambda: False)
    config.pick(config.TARGETS["sm_90"], 30, "ieee", False, parameter_bytes=8)


@pytest.mark.parametrize("precision", ["ieee", "tf32", "bf16x3"])
def test_no_copy_is_in_flight_where_triton_orders_none_before_the_matrix_units(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = {}
    for ordered in (True, False):
        monkeypatch.setattr(config, "orders_copies", lambda ordered=ordered: ordered)
        targets = [config.TARGETS[name] for name in ("sm_80", "sm_90", "sm_100", "sm_120", "gfx942")]
        stages[ordered] = [config.pick(target, 30, precision, False).options["num_stages"] for target in targets]
    assert stages == {True: [2, 2, 2, 2, 1], False: [2, 1, 1, 2, 1]}


@pytest.mark.parametrize(
    ("installed", "ordered"), [("3.6.0", False), ("3.7.0", False), ("3.7.1", True), ("3.9.0", True)]
)
def test_versions_that_order_copies(installed: str, ordered: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version, "version", lambda name: installed)
    version.orders_copies.cache_clear()
    assert version.orders_copies() == ordered
    version.orders_copies.cache_clear()


@pytest.mark.parametrize("target", ["sm_86", "sm_100"])
def test_wide_float64_factors_are_read_in_chunks(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = [(rank, aligned) for rank in (32, 64, 128, 256) for aligned in (True, False)]
    for old, chunks in ((False, {0, 32}), (True, {32})):
        monkeypatch.setattr(config, "is_old", lambda old=old: old)
        picked = [config.pick(config.TARGETS[target], rank, "ieee", True, 8, aligned) for rank, aligned in wide]
        assert {build.chunk for build in picked} == chunks
        assert config.pick(config.TARGETS[target], 30, "ieee", True, 8).chunk == 0


@pytest.mark.parametrize("old", [False, True])
def test_an_older_triton_adds_without_atomics_on_gfx1100(old: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "is_old", lambda: old)
    for name, atomics in (("gfx1100", not old), ("gfx90a", False), ("gfx942", True), ("sm_90", True)):
        target = config.TARGETS[name]
        assert config.pick(target, 30, "ieee", False).atomics == atomics
        assert sparse_config.pick_sparse(target, 30, False).atomics == atomics
        assert not sparse_config.pick_sparse(target, 30, True).atomics


@pytest.mark.parametrize(("old", "expected"), [(False, (0, 20)), (True, (20, 20))])
def test_sparse_builds_leave_registers_where_ptxas_would_spill(
    old: bool, expected: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sparse_config, "is_old", lambda: old)
    builds = [
        sparse_config.pick_sparse(config.TARGETS[name], rank, True) for name, rank in (("sm_90", 8), ("sm_100", 16))
    ]
    assert tuple(build.resident for build in builds) == expected
    assert builds[1].options["ptx_options"] == "--minnctapersm 20"


def returned(function: ast.FunctionDef) -> Iterator[ast.expr]:
    """What a function returns, the parts of tuples one by one."""
    for node in ast.walk(function):
        if isinstance(node, ast.Return) and node.value is not None:
            yield from node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]


def test_no_function_of_the_kernels_returns_none():
    """Triton 3.6 compiles none that does."""
    functions = [
        node
        for path in Path(version.__file__).parent.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and any("triton.jit" in ast.unparse(d) for d in node.decorator_list)
    ]
    assert len(functions) > 20
    for function in functions:
        assert not [value for value in returned(function) if isinstance(value, ast.Constant) and value.value is None]
