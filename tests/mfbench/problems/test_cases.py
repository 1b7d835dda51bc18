"""Suites: every shipped one loads, axes multiply, overrides replace, bad files are named."""

from __future__ import annotations

import pytest

from mfbench.errors import UsageError
from mfbench.problems.cases import load_suite, nearest, parse_size, suite_names


@pytest.mark.parametrize("name", suite_names())
def test_shipped_suites_have_distinct_cases(name: str) -> None:
    cases = load_suite(name).cases({})
    assert cases
    assert len(set(cases)) == len(cases)
    assert all(case.suite == name for case in cases)


def test_axes_multiply() -> None:
    cases = load_suite("density").cases({})
    assert {(case.density, case.mask) for case in cases} == {
        (density, mask) for density in (0.01, 0.1, 0.5, 0.8, 1.0) for mask in ("uint8", "none")
    }


def test_square_goes_from_256_to_16384() -> None:
    sizes = [(case.m, case.n) for case in load_suite("square").cases({})]
    assert sizes == [(2**power, 2**power) for power in range(8, 15)]


def test_overrides_replace_axes_in_every_group() -> None:
    cases = load_suite("quick").cases({"rank": [7], "ratings_dtype": ["bfloat16"]})
    assert {case.rank for case in cases} == {7}
    assert {case.ratings_dtype for case in cases} == {"bfloat16"}


def test_size_leaves_out_data_that_brings_its_own() -> None:
    cases = load_suite("quick").cases({"size": ["40x50"]})
    assert {(case.m, case.n) for case in cases} == {(40, 50)}
    assert {case.data for case in cases} == {"seed", "synthetic"}


def test_data_override_collapses_to_distinct_cases() -> None:
    cases = load_suite("square").cases({"data": ["movielens"], "size": ["0x0"]})
    assert [case.data for case in cases] == ["movielens"]


@pytest.mark.parametrize("text", ["", "5", "5x", "x5", "-1x5", "5x5x5", "axb", "5.0x5"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="--size: expected MxN"):
        parse_size(text)


def test_nearest_name() -> None:
    assert nearest("sqare", ["square", "seed"]) == "; did you mean 'square'?"
    assert nearest("zzz", ["square", "seed"]) == "; there are square, seed"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("description = 'x'\n[[case]]\nrank = 'high'", r"case\.0\.rank"),
        ("description = 'x'\n[[case]]\nsizes = '3x4'", r"case\.0\.sizes: no such name; did you mean 'size'"),
        ("description = 'x'\n[[case]]\nratings_dtype = 'int16'", r"case\.0\.ratings_dtype"),
        ("description = 'x'", "case: Field required"),
        ("description = ", "is not TOML"),
        ("description = 'x'\n[[case]]\nrank = 3", "size is missing"),
        ("description = 'x'\n[[case]]\nsize = []", r"case\.0\.size"),
        ("description = 'x'\n[[case]]\nsize = '3x3'\nrank = -1", r"case\.0\.rank"),
        ("description = 'x'\n[[case]]\nsize = '3x3'\ndensity = 2", r"case\.0\.density"),
    ],
)
def test_bad_suite_files_are_named(tmp_path, content: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(content)
    with pytest.raises(UsageError, match=message):
        load_suite(str(path))


def test_own_suite_file(tmp_path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("description = 'mine'\nproviders = ['fused']\n[[case]]\nsize = ['3x4', '5x6']\nrank = [1, 2]\n")
    suite = load_suite(str(path))
    assert suite.name == "mine"
    assert [(case.m, case.n, case.rank) for case in suite.cases({})] == [(3, 4, 1), (3, 4, 2), (5, 6, 1), (5, 6, 2)]
