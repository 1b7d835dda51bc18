"""Files without a header, or with an unusual one: no column is taken for another in silence."""

import numpy as np
import pytest

from mfbench.errors import UsageError
from tests.mfbench.problems.ratings.common import load, read, write

pytest.importorskip("pyarrow")


@pytest.mark.parametrize(
    ("content", "column"),
    [
        ("7,30,1260759144.0,4\n2,10,1260759145.0,3\n", 3),  # pandas, where a time was missing
        ("7;30;1260759144,5;4\n2;10;1260759145,5;3\n", 3),
        ("7,30,1.26E+09,4\n2,10,1.27E+09,3\n", 3),  # Excel
        ("7,30,20050906,4\n2,10,20051224,3\n", 3),
        ("7 30 1260759144.25\n2 10 1260759145.5\n", 3),
        ("2005-09-06,7,30,4\n2005-09-07,8,30,5\n", 1),
        ("2005-09-06 10:00:00,7,30,4\n2005-09-07 09:30:00,8,30,5\n", 1),
        ("7\t06/09/2005\t30\t4\n8\t7/9/2005\t30\t5\n", 2),
        ("7,2005-09-06T10:00:00Z,30,4\n8,2005-09-07T10:00:00Z,30,5\n", 2),
        ("20050906,7,30,4\n20051224,8,30,5\n", 1),
    ],
)
def test_times_in_any_form_are_no_ratings_or_identifiers(tmp_path, content, column):
    with pytest.raises(UsageError, match=f"no header, and column {column} looks like times") as raised:
        read(write(tmp_path, content))
    assert raised.value.code == "ambiguous-data"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("7,30,4,2005-09-06\n2,10,3,2005-09-07\n", {(7, 30): 4, (2, 10): 3}),
        ("7,30,4,20050906\n2,10,3,20051224\n", {(7, 30): 4, (2, 10): 3}),
        ("20050906,30,4\n20051224,10,3\n", {(20050906, 30): 4, (20051224, 10): 3}),
        ("7,30,19991332\n2,10,20051400\n", {(7, 30): 19991332, (2, 10): 20051400}),
        ("7,30,1.5e7\n2,10,2.5e7\n", {(7, 30): 15e6, (2, 10): 25e6}),
        ("7,30,2e38\n2,10,1e38\n", {(7, 30): float(np.float32(2e38)), (2, 10): float(np.float32(1e38))}),
        ("2005-09-06,7,4\n2005-09-07,8,5\n", {("2005-09-06", 7): 4, ("2005-09-07", 8): 5}),
    ],
)
def test_what_only_looks_like_times_is_read(tmp_path, content, expected):
    assert read(write(tmp_path, content)) == (expected, [])


@pytest.mark.parametrize(
    "header",
    ["User ID,Movie ID,Star Rating", "USERID,MOVIEID,RATING", "user.id,item.id,rating", '"uid" , "iid" , "rate"',
     "\ufeffuserId,movieId,rating", "#userId,movieId,rating"],
)  # fmt: skip
def test_names_in_any_spelling(tmp_path, header):
    content = f"{header}\n30,7,4\n10,2,0.5\n"
    assert read(write(tmp_path, content)) == ({(30, 7): 4, (10, 2): 0.5}, [])
    mirrored = ",".join(reversed(header.removeprefix("\ufeff").removeprefix("#").split(",")))
    assert read(write(tmp_path, f"{mirrored}\n4,7,30\n0.5,2,10\n")) == ({(30, 7): 4, (10, 2): 0.5}, [])


@pytest.mark.parametrize(
    ("content", "expected", "left_out"),
    [
        ("sep=;\nuser;item;rating\n30;7;4\n", {(30, 7): 4}, ["line 1 is 'sep=;'"]),  # Excel
        ("userId,movieId,rating\n30,7,4\nuserId,movieId,rating\n10,2,1\n", {(30, 7): 4, (10, 2): 1}, ["3 (line 3 is"]),
        ("user_id,book_id,is_read,rating,is_reviewed\n0,948,1,5,0\n1,947,1,4,1\n", {(0, 948): 5, (1, 947): 4}, []),
        ("item,timestamp,user\trating\n", None, "expected"),
        ("userId,movieId,tag,timestamp\n3,260,classic,1439472355\n3,1732,9,1439472256\n", None, "found no rating"),
        ("userId,movieId,rating,predicted_rating,value\n1,2,3,4,5\n", None, "rating may be 'rating' or 'value'"),
        ("user,movie\n1,2\n3,4\n", None, "expected"),
    ],
)
def test_unusual_headers(tmp_path, content, expected, left_out):
    path = write(tmp_path, content)
    if expected is None:
        with pytest.raises(UsageError, match=left_out):
            read(path)
        return
    found, said = read(path)
    assert found == expected
    assert len(said) == len(left_out)
    assert all(part in message for part, message in zip(left_out, said, strict=True))


IDENTIFIERS = ["-0", "+7", "1e3", "0x10", "NaN", "null", "1_000", "0.0", "9" * 40, "-9223372036854775809", " 7 ",
               "c0ffee00-0000-4000-8000-000000000001", "Ａ", "7 8"]  # fmt: skip


@pytest.mark.parametrize("identifier", IDENTIFIERS)
@pytest.mark.parametrize("header", ["", "user_id,item_id,rating\n"])
def test_an_identifier_does_not_depend_on_other_lines(tmp_path, identifier, header):
    """A broken line, or a quote or a byte that is not UTF-8 in another, is read by another path."""
    good = f"{header}{identifier},1,4\n5,{identifier},3\nx,1,2\n".encode()
    clean, _ = load(write(tmp_path, good))
    assert identifier.strip() in map(str, clean.users)
    for odd in (b"broken\n", b"1,2\n", b'"5,1,2\n', b"\xff\xfe\n", b",,\n"):
        broken, said = load(write(tmp_path, good + odd))
        assert (broken.users, broken.items) == (clean.users, clean.items), odd
        assert len(said) == 1
