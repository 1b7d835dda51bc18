"""Files of kinds that are not read are refused, and marks for missing ratings are never ratings."""

import gzip

import numpy as np
import pytest

from mfbench.errors import UsageError
from tests.mfbench.problems.ratings.common import read, write

pytest.importorskip("pyarrow")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"user_id": 1, "item_id": 2, "rating": 3}\n{"user_id": 2, "item_id": 2, "rating": 4}\n', "is JSON"),
        ('{"user":1,"item":2,"rating":3}\n', "is JSON"),
        ("[1, 2, 3.5]\n[2, 2, 4.5]\n", "is JSON"),
        ("[[1, 2, 3.5], [2, 2, 4.5]]\n", "is JSON"),
        ("(1, 2, 3.5)\n(2, 2, 4.5)\n", "column 3 holds no numbers"),
        ("4 7:1 30:1\n3 2:1 10:1\n", "column 3 holds no numbers"),  # svmlight
        ("1|2|3\n4|5|6\n", "separated by ::, tabs, commas, semicolons or blanks; line 1 is '1|2|3'"),
        ("<html><body>Not found</body></html>\n", "line 1 is '<html>"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 12345\n", "line 1 is 'version https"),
        (gzip.compress(b"X\n" + bytes(200), mtime=0), "line 1 is 'X'"),  # R's saveRDS
        (b"FEA1" + bytes(100), "line 1 is 'FEA1"),  # the first version of Feather
    ],
)
def test_what_is_no_table_of_ratings_is_refused(tmp_path, content, expected):
    with pytest.raises(UsageError) as raised:
        read(write(tmp_path, content))
    assert raised.value.code == "bad-data"
    assert expected in raised.value.message


def test_identifiers_in_braces_are_no_json(tmp_path):
    assert read(write(tmp_path, "{c0ffee},[1],4\n{decade},[2],3\n"))[0] == {
        ("{c0ffee}", "[1]"): 4,
        ("{decade}", "[2]"): 3,
    }


@pytest.mark.parametrize("mark", ["\\N", "NULL", "NA", "?", "-", "nan", "None", "#N/A"])
def test_ratings_that_a_database_or_a_spreadsheet_lacks_are_left_out_by_name(tmp_path, mark):
    found, said = read(write(tmp_path, f"user,item,rating\n1,2,{mark}\n1,3,4\n2,3,{mark}\n"))
    assert found == {(1, 3): 4}
    assert len(said) == 1
    assert said[0].startswith("2 lines left out")
    assert ": 2, 4 (line 2 is " in said[0]


@pytest.mark.parametrize(
    ("values", "mark", "expected"),
    [
        (np.ma.masked_equal([[1, 0, 3], [4, 5, 0]], 0).filled(), "0", {(0, 0): 1, (0, 2): 3, (1, 0): 4, (1, 1): 5}),
        (np.ma.masked_invalid([[1, np.nan, 3]]).filled(), "1.00000002e+20", {(0, 0): 1, (0, 2): 3}),
        (np.array([[-1, 3, -1], [4, -1, 5]], np.int8), "-1", {(0, 1): 3, (1, 0): 4, (1, 2): 5}),
    ],
)
def test_arrays_whose_mask_was_lost_are_refused_and_read_with_the_value_named(tmp_path, values, mark, expected):
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(UsageError, match="more than one reading") as raised:
        read(tmp_path / "a.npy")
    assert f"--format missing={mark} if it marks missing ratings" in raised.value.message
    assert read(tmp_path / "a.npy", format=f"missing={mark}")[0] == expected


@pytest.mark.parametrize(
    "users", [("7", "7.0", "07"), ("a", "A", "ａ"), ("é", "e\u0301", "e"), ("1e3", "1000", "+1000")]
)
def test_identifiers_that_look_alike_are_different_users(tmp_path, users):
    lines = "".join(f"{user},1,{rating}\n" for rating, user in enumerate(users, start=1))
    assert read(write(tmp_path, lines)) == ({(user, 1): rating for rating, user in enumerate(users, start=1)}, [])
