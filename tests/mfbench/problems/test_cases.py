"""Suites: every shipped one loads, axes multiply, overrides replace, bad files are named."""

from __future__ import annotations

import pytest

from mfbench.errors import UsageError
from mfbench.problems.cases import (
    CaseSpec,
    find_suite,
    load_suite,
    parse_axes,
    parse_overrides,
    parse_size,
    suite_names,
)


@pytest.mark.parametrize("name", suite_names())
def test_shipped_suites_have_distinct_cases(name: str) -> None:
    cases = load_suite(name).specs({})
    assert cases
    assert len(set(cases)) == len(cases)
    assert all(case.suite == name for case in cases)


def test_axes_multiply() -> None:
    cases = load_suite("density").specs({})
    assert [(case.density, case.layout, case.mask) for case in cases] == [
        (density, *layout)
        for density in (0.01, 0.1, 0.2, 0.5, 0.8, 1.0)
        for layout in (("dense", "uint8"), ("dense", "none"), ("sparse", "none"))
    ]


def test_square_goes_from_256_to_16384() -> None:
    sizes = [case.size for case in load_suite("square").specs({})]
    assert sizes == [(2**power, 2**power) for power in range(8, 15)]


def test_overrides_replace_axes_in_every_group() -> None:
    cases = load_suite("quick").specs({"rank": [7], "ratings_dtype": ["bfloat16"]})
    assert {case.rank for case in cases} == {7}
    assert {case.ratings_dtype for case in cases} == {"bfloat16"}


def test_size_leaves_out_data_that_brings_its_own() -> None:
    cases = load_suite("quick").specs({"size": ["40x50"]})
    assert {case.size for case in cases} == {(40, 50)}
    assert {case.data for case in cases} == {"seed", "synthetic"}


def test_data_override_collapses_to_distinct_cases() -> None:
    cases = load_suite("square").specs({"data": ["movielens"]})
    assert [case.data for case in cases] == ["movielens"]


def test_given_data_takes_the_place_of_data_sets_alone() -> None:
    cases = load_suite("quick").specs({"data": ["ratings.csv"]})
    assert [(case.data, case.size, case.layout) for case in cases] == [("ratings.csv", None, "auto")]


@pytest.mark.parametrize(("name", "value", "code"), [("size", "9x9", "bad-size"), ("density", 0.1, "bad-axis")])
def test_a_size_or_density_beside_data_that_has_its_own_is_refused(name: str, value: str | float, code: str) -> None:
    with pytest.raises(UsageError, match=f"'movielens' has its own {name}") as raised:
        load_suite("square").specs({"data": ["movielens"], name: [value]})
    assert (raised.value.code, raised.value.argument) == (code, name)


@pytest.mark.parametrize("text", ["", "5", "5x", "x5", "-1x5", "5x5x5", "axb", "5.0x5"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_size(text)
    assert (raised.value.code, raised.value.argument) == ("bad-size", "size")


def test_options_with_a_size_and_no_suite_describe_one_case() -> None:
    axes = parse_overrides({"size": "40x50", "rank": 7})
    suite = find_suite(None, axes)
    assert suite.name == "custom"
    assert suite.specs(axes) == [
        CaseSpec(suite="custom", size=(40, 50), rank=7, density=0.8, ratings_dtype="float32", mask="uint8",
                 data="synthetic", seed=1)
    ]  # fmt: skip
    assert find_suite("quick", axes).name == find_suite(None, {"rank": [7]}).name == "quick"


def test_a_case_leads_back_to_its_specification() -> None:
    for spec in (*load_suite("movielens").specs({}), *load_suite("seed").specs({})):
        size, density = spec.size or (30, 40), spec.density or 0.25
        case, other = (spec.sized(*size, density, layout) for layout in ("dense", "sparse"))
        if spec.layout == "sparse":
            case, other = other, case
        assert spec.leads_to(case)
        assert spec.leads_to(other) == (spec.layout == "auto")
        assert [found for found in load_suite(spec.suite).specs({}) if found.leads_to(case)] == [spec]
        assert case.model_dump_json().startswith(f'{{"suite":"{spec.suite}","m":{case.m},"n":{case.n},"rank":')


@pytest.mark.parametrize(("axes", "code", "argument"), [
    ({"sise": "3x4"}, "no-such-axis", "sise"), ({"size": (64, 64)}, "bad-axis", "size"),
    ({"size": "3by4"}, "bad-size", "size"), ({"size": "3x4", "density": 2}, "bad-axis", "density"),
    ({"data": "synthetic"}, "bad-axis", None), ({"size": "3x4", "rank": [-1]}, "bad-axis", "rank"),
    ({"size": "3x4", "layout": "sparse", "mask": "bool"}, "bad-axis", None),
])  # fmt: skip
def test_axes_that_do_not_fit(axes: dict, code: str, argument: str | None) -> None:
    with pytest.raises(UsageError) as raised:
        parse_axes(axes)
    assert (raised.value.code, raised.value.argument) == (code, argument)


@pytest.mark.parametrize(
    ("content", "code", "place"),
    [
        ("description = 'x'\n[[case]]\nrank = 'high'", "bad-suite", "case.0.rank.0: "),
        ("description = 'x'\n[[case]]\nsizes = '3x4'", "bad-suite", "case.0.sizes: no such name; did you mean 'size'"),
        ("description = 'x'\n[[case]]\nratings_dtype = 'int16'", "bad-suite", "case.0.ratings_dtype.0: "),
        ("description = 'x'", "bad-suite", "case: "),
        ("description = ", "not-toml", "mine.toml is not TOML"),
        ("description = 'x'\n[[case]]\nrank = 3", "bad-suite", "case.0: size is missing"),
        ("description = 'x'\n[[case]]\nsize = []", "bad-suite", "case.0.size: "),
        ("description = 'x'\n[[case]]\nsize = '3x3'\nrank = -1", "bad-suite", "case.0.rank.0: "),
        ("description = 'x'\n[[case]]\nsize = '3x3'\ndensity = 2", "bad-suite", "case.0.density.0: "),
        (
            "description = 'x'\n[[case]]\nsize = '3x3'\nlayout = 'sparse'\nmask = ['bool', 'uint8']",
            "bad-suite",
            "case.0: mask: sparse ratings have no mask, since all that are stored are observed, got bool, uint8",
        ),
    ],
)
def test_bad_suite_files_are_named(tmp_path, content: str, code: str, place: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(content)
    with pytest.raises(UsageError) as raised:
        load_suite(str(path))
    assert raised.value.code == code
    assert place in str(raised.value)


@pytest.mark.parametrize(("name", "code"), [("quik", "no-such-suite"), ("absent.toml", "unreadable-file")])
def test_suites_that_do_not_exist(name: str, code: str) -> None:
    with pytest.raises(UsageError) as raised:
        load_suite(name)
    assert raised.value.code == code


def test_own_suite_file(tmp_path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("description = 'mine'\nproviders = ['fused']\n[[case]]\nsize = ['3x4', '5x6']\nrank = [1, 2]\n")
    suite = load_suite(str(path))
    assert suite.name == "mine"
    assert [(*case.size, case.rank) for case in suite.specs({})] == [(3, 4, 1), (3, 4, 2), (5, 6, 1), (5, 6, 2)]


@pytest.mark.parametrize(
    ("layout", "mask", "noted"),
    [
        ("['sparse', 'dense']", "'bool'", True),
        ("['auto', 'sparse']", "['int32', 'bool']", True),
        ("['sparse', 'dense']", "['uint8', 'none']", False),
        ("'auto'", "'bool'", False),
        ("'dense'", "'bool'", False),
    ],
)
def test_a_mask_that_sparse_ratings_lack_is_not_dropped_in_silence(
    tmp_path, capsys, layout: str, mask: str, noted: bool
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f"description = 'x'\n[[case]]\nsize = '3x4'\nlayout = {layout}\nmask = {mask}\n")
    specs = load_suite(str(path)).specs({})
    assert {spec.mask for spec in specs if spec.layout == "sparse"} <= {"none"}
    assert ("suite mine: sparse ratings have no mask" in capsys.readouterr().err) == noted


def test_a_mask_for_a_sparse_suite_is_refused() -> None:
    with pytest.raises(UsageError, match="sparse ratings have no mask") as raised:
        load_suite("sparse").specs(parse_overrides({"mask": "bool"}))
    assert raised.value.argument == "mask"
    assert load_suite("sparse").specs(parse_overrides({"mask": "none"}))
    assert {spec.mask for spec in load_suite("seed").specs(parse_overrides({"layout": "sparse"}))} == {"none"}


@pytest.mark.parametrize("name", suite_names())
def test_shipped_suites_need_no_note(name: str, capsys) -> None:
    load_suite(name).specs({})
    assert capsys.readouterr().err == ""
