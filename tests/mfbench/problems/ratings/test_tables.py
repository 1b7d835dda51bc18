"""Parquet as pandas and pyarrow write it."""

import io
from decimal import Decimal

import pytest

from mfbench.errors import UsageError
from mfbench.problems.ratings import parquet
from tests.mfbench.problems.ratings.common import load, read, write

pa = pytest.importorskip("pyarrow")
pd = pytest.importorskip("pandas")
import pyarrow.parquet as pq  # noqa: E402

TRIPLES = [(7, 30, 4.0), (2, 10, 0.5), (7, 10, 5.0), (11, 20, 0.0)]
EXPECTED = {(user, item): rating for user, item, rating in TRIPLES}
FRAME = pd.DataFrame(TRIPLES, columns=["userId", "movieId", "rating"])


def table(path, **columns):
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: frame,
        lambda frame: frame.assign(timestamp=pd.Timestamp("2020-01-01"), genres="a|b")[
            ["timestamp", "rating", "genres", "movieId", "userId"]
        ],
        lambda frame: frame.set_index(["userId", "movieId"]),
        lambda frame: frame.set_index(pd.Index([9, 8, 7, 6])),
        lambda frame: frame.astype({"userId": "category", "movieId": "category"}),
        lambda frame: frame.astype({"userId": "int32", "movieId": "uint64", "rating": "float32"}),
        lambda frame: frame.astype({"userId": "Int64", "movieId": "float64", "rating": "Float64"}),
        lambda frame: frame.astype({"rating": "category"}),
    ],
)
@pytest.mark.parametrize("compression", ["snappy", "zstd", None])
def test_pandas(tmp_path, change, compression):
    change(FRAME).to_parquet(tmp_path / "a", compression=compression)
    assert read(tmp_path / "a") == (EXPECTED, [])


def test_parts_are_joined(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "ROWS", 3)
    FRAME.to_parquet(tmp_path / "a", row_group_size=2)
    assert read(tmp_path / "a") == (EXPECTED, [])


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.dictionary(pa.int8(), pa.string())]
)
def test_text_identifiers(tmp_path, kind):
    users = pa.array(["007", "7", "Müller"]).cast(kind)
    found, said = read(table(tmp_path / "a", user=users, item=[1, 1, 1], rating=[1, 2, 3]))
    assert found == {("007", 1): 1, ("7", 1): 2, ("Müller", 1): 3}
    assert said == []


def test_large_identifiers(tmp_path):
    large = 2**63 + 5
    path = table(tmp_path / "a", user=pa.array([large, large + 1], pa.uint64()), item=[1, 2**62 + 1], rating=[1, 2])
    matrix, _ = load(path)
    assert (matrix.users, matrix.items) == ([large, large + 1], [1, 2**62 + 1])
    with pytest.raises(UsageError, match=r"users as double of 2\*\*53 or more: their last digits are lost"):
        read(table(tmp_path / "b", user=[2.0**53, 1.0], item=[1, 2], rating=[1, 2]))


def test_floats_as_identifiers(tmp_path):
    path = table(tmp_path / "a", user=[1.0, 2.0, None, float("nan")], item=[1, 1, 1, 1], rating=[1, 2, 3, 4])
    found, said = read(path)
    assert found == {(1, 1): 1, (2, 1): 2}
    assert "2 rows left out" in said[0]
    assert ": 2, 3 (the first row is 0)" in said[0]
    assert read(table(tmp_path / "b", user=[1.5, 2.0], item=[1, 1], rating=[1, 2]))[0] == {("1.5", 1): 1, ("2", 1): 2}


@pytest.mark.parametrize(
    "ratings",
    [
        pa.array([4, 5, None], pa.int8()), pa.array([4, 5, None], pa.float16()),
        pa.array([Decimal("4.0"), Decimal("5.0"), None]), pa.array(["4", " 5.0 ", "x"]),
        pa.array([4.0, 5.0, float("inf")]), pa.array([4.0, 5.0, 1e39]), pa.array([4.0, 5.0, float("nan")]),
    ],
)  # fmt: skip
def test_types_of_ratings(tmp_path, ratings):
    found, said = read(table(tmp_path / "a", user=[1, 2, 3], item=[1, 1, 1], rating=ratings))
    assert found == {(1, 1): 4, (2, 1): 5}
    assert said == [
        "1 row left out, without a user, an item or a rating that is finite in float32: 2 (the first row is 0)"
    ]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"user": [1], "item": [2]}, "found no rating among the columns 'user', 'item'"),
        ({"user": [1], "uid": [1], "item": [2], "rating": [3]}, "user may be 'user' or 'uid'"),
        ({"user": [[1]], "item": [2], "rating": [3]}, "expected text or numbers as users, got a column of list"),
        ({"user": [True], "item": [2], "rating": [3]}, "expected text or numbers as users, got a column of bool"),
        ({"user": [1], "item": [2], "rating": [True]}, "expected numbers as ratings, got a column of bool"),
        ({"user": [1], "item": [2], "rating": pa.array([None])}, "expected ratings, found none"),
        ({"user": [1, 2, 3], "item": [2, 2, 2], "rating": [99, 1, 2]}, "1 value of 99"),
    ],
)
def test_columns_that_do_not_fit(tmp_path, columns, expected):
    with pytest.raises(UsageError, match=expected):
        read(table(tmp_path / "a", **columns))


def test_columns_by_name_and_place(tmp_path):
    path = table(tmp_path / "a", a=[1], b=[2], c=[3])
    assert read(path, columns="b,a,c") == ({(2, 1): 3}, [])
    assert read(path, columns="2,1,3") == ({(2, 1): 3}, [])
    assert read(path, columns="item,user,rating") == ({(2, 1): 3}, [])
    with pytest.raises(UsageError, match="no column 'd' among 'a', 'b', 'c'"):
        read(path, columns="d,a,c")


def test_a_name_with_a_dot_is_one_column(tmp_path):
    path = table(tmp_path / "a", **{"user.id": [1], "item.id": [2], "rating": [3]})
    assert read(path) == ({(1, 2): 3}, [])


def test_a_torn_file(tmp_path):
    sink = io.BytesIO()
    FRAME.to_parquet(sink)
    for content in (sink.getvalue()[:-1], sink.getvalue()[:50], b"PAR1"):
        with pytest.raises(UsageError, match="cannot read"):
            read(write(tmp_path, content))
