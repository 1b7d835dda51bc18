"""Text with one rating a line: separators, headers, identifiers, broken lines."""

import itertools

import pytest
import torch

from mfbench.errors import UsageError
from mfbench.problems.ratings import lines
from tests.mfbench.problems.ratings.common import load, read, write

pytest.importorskip("pyarrow")

SEPARATORS = {"::": "::", "tab": "\t", "comma": ",", "semicolon": ";", "blank": " "}
TRIPLES = [(7, 30, 4.0), (2, 10, 0.5), (7, 10, 5.0), (11, 20, 3.5)]
EXPECTED = {(user, item): rating for user, item, rating in TRIPLES}
HEADERS = {"none": "", "MovieLens": "userId movieId rating timestamp", "short": "user_id item_id score time"}


def text(separator, header="", quote="", newline="\n", end="\n"):
    rows = [[*map(str, triple), "1260759144"] for triple in TRIPLES]
    rows = [header.split()] * bool(header) + rows
    return newline.join(separator.join(f"{quote}{field}{quote}" for field in row) for row in rows) + end


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
@pytest.mark.parametrize("separator", SEPARATORS.values(), ids=SEPARATORS)
def test_separators_headers_and_quotes(tmp_path, separator, header):
    for quote, newline, end in itertools.product(("", '"'), ("\n", "\r\n", "\r"), (True, False)):
        content = text(separator, header, quote, newline, newline if end else "")
        assert read(write(tmp_path, content)) == (EXPECTED, []), content


def test_the_result_is_sparse_in_the_order_of_the_identifiers(tmp_path):
    matrix, _ = load(write(tmp_path, text("\t")))
    assert matrix.ratings.layout == torch.sparse_csr
    assert matrix.ratings.dtype == torch.float32
    assert (matrix.users, matrix.items) == ([2, 7, 11], [10, 20, 30])
    assert matrix.ratings.to_dense().tolist() == [[0.5, 0, 0], [5, 0, 4], [0, 3.5, 0]]


@pytest.mark.parametrize(
    "content",
    [
        ",userId,movieId,rating\n0,7,30,4\n1,2,10,0.5\n2,7,10,5\n3,11,20,3.5\n",  # written with its index
        '"","userId","movieId","rating"\n"1",7,30,4\n"2",2,10,0.5\n"3",7,10,5\n"4",11,20,3.5\n',  # R's write.csv
        '"userId" "movieId" "rating"\n"1" 7 30 4\n"2" 2 10 0.5\n"3" 7 10 5\n"4" 11 20 3.5\n',  # R's write.table
        "movieId,userId,rating\n30,7,4\n10,2,0.5\n10,7,5\n20,11,3.5\n",
        "rating,userId,movieId\n4,7,30\n0.5,2,10\n5,7,10\n3.5,11,20\n",
        "userId,movieId,timestamp,rating\n7,30,1260759144,4\n2,10,1260759145,0.5\n7,10,1260759146,5\n11,20,9,3.5\n",
        "userID\tmovieID\trating\tdate_day\tdate_month\n7\t30\t4\t29\t10\n2\t10\t.5\t1\t1\n7\t10\t5\t1\t1\n11\t20\t3.5\t1\t1\n",
        "user_id:token\titem_id:token\trating:float\n7\t30\t4\n2\t10\t.5\n7\t10\t5\n11\t20\t3.5\n",
        "timestamp,stars,isbn,customer_id,review\n1,4,30,7,a\n1,0.5,10,2,\n1,5,10,7,\"b, c\"\n1,3.5,20,11,d\n",
        "# user item rating\n7 30 4\n2 10 .5\n7 10 5\n11 20 3.5\n",  # NumPy's savetxt with a header
        "% bip weighted\n% 4 3 3\n7 30 4\n2 10 .5\n7 10 5\n11 20 3.5\n",  # KONECT
        "userId,movieId,rating\n7,30,4,\n2,10,0.5,\n7,10,5,\n11,20,3.5,\n",  # a separator too many, on every line
        "\n\nuserId, movieId, rating\n7, 30, 4\n 2,10 , 0.5\n\n7,10,5\n  \n11,20,3.5\n",
    ],
)  # fmt: skip
def test_a_header_decides_by_names(tmp_path, content):
    assert read(write(tmp_path, content)) == (EXPECTED, [])


@pytest.mark.parametrize(
    ("content", "readings"),
    [
        ("7,30,1260759144,4\n2,10,1260759145,3\n", ["column 3 looks like times", "user,item,_,rating"]),
        ("7,30,1260759144\n2,10,1260759145\n", ["column 3 looks like times"]),
        ("0,7,30,4\n1,2,10,0.5\n2,7,10,5\n", ["column 1 counts the lines", "user,item,rating", "_,user,item,rating"]),
        ("978300760,7,30,4\n978300761,8,30,5\n", ["column 1 looks like times", "time,user,item,rating"]),
        ("7,978300760,30,4\n8,978300761,30,5\n", ["column 2 looks like times", "user,item,rating"]),
        ("978300760123\t7\t30\t4\n978300761000\t8\t30\t5\n", ["column 1 looks like times"]),
        ("user,uid,item,rating\n1,2,3,4\n", ["user may be 'user' or 'uid'"]),
        ("user,item,rating,stars\n1,2,3,4\n", ["rating may be 'rating' or 'stars'"]),
        ("user,item,item,rating\n1,2,3,4\n", ["item may be 'item' or 'item'"]),
        ("0,1,2\n1,2,3\n4,5,6\n", ["a rating or pandas' header"]),
        (",0,1,2\n0,4,5,6\n1,5,6,7\n", ["a rating or pandas' header"]),
        ("1,2,3,4,5\n2,3,4,5,6\n", ["no header, and 5 columns", "--columns"]),
        ("1,2,99\n1,3,4\n2,3,-5\n", ["1 value of 99 beside ratings from -5 to 4", "missing=99", "missing=nan"]),
        ("user;item;rating\n1;2;-999\n1;3;4,5\n2;3;1,5\n", ["1 value of -999 beside ratings from 1.5 to 4.5"]),
        ("user,anime_id,rating\n1,2,-1\n1,3,4\n2,3,10\n", ["1 value of -1 beside ratings from 4 to 10", "missing=-1"]),
        ("a,b,3,c;d;4\n" * 3, ["separated by semicolon", "separated by comma", "--format"]),
    ],
)
def test_more_than_one_reading_is_an_error_that_lists_them(tmp_path, content, readings):
    with pytest.raises(UsageError) as raised:
        read(write(tmp_path, content))
    assert str(tmp_path) in raised.value.message
    assert raised.value.code == "ambiguous-data"
    for reading in readings:
        assert reading in raised.value.message


@pytest.mark.parametrize(
    ("content", "columns", "expected"),
    [
        ("7,30,1260759144,4\n", "user,item,_,rating", {(7, 30): 4}),
        ("978300760,7,30,4\n978300761,8,30,5\n", "time,user,item,rating", {(7, 30): 4, (8, 30): 5}),
        ("978300760,7,3,4\n978300761,8,3,5\n", "user,item,rating", {(978300760, 7): 3, (978300761, 8): 3}),
        ("7,30,1260759144,4\n", "user,item,time,rating", {(7, 30): 4}),
        ("7,30,1260759144,4\n", "1,2,4", {(7, 30): 4}),
        ("7,30,1260759144,4\n", ["2", "1", "4"], {(30, 7): 4}),
        ("0,7,30,4\n1,7,31,5\n2,8,31,5\n", "_,user,item,rating", {(7, 30): 4, (7, 31): 5, (8, 31): 5}),
        ("0,7,4\n1,7,5\n2,8,5\n", "user,item,rating", {(0, 7): 4, (1, 7): 5, (2, 8): 5}),
        ("a,b,c\n1,2,3\n", "a,c,b", {(1, 3): 2}),
        ("a,b,c\n1,2,3\n", "item,user,rating", {(2, 1): 3}),
        ("0,1,2\n1,2,3\n", "0,1,2", {(1, 2): 3}),
        ("0,1,2\n1,2,3\n", "user,item,rating", {(0, 1): 2, (1, 2): 3}),
        ("user,uid,item,rating\n1,2,3,4\n", "uid,item,rating", {(2, 3): 4}),
        ("user_id:token\titem_id:token\tlabel:float\n1\t2\t3\n", "user_id,item_id,label", {(1, 2): 3}),
        ("userId,movieId,rating\n1,2,3\n", "movieId,userId,rating", {(2, 1): 3}),  # the user has the last word
    ],
)
def test_columns(tmp_path, content, columns, expected):
    assert read(write(tmp_path, content), columns=columns) == (expected, [])


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ("user,item", "expected user,item,rating"),
        ("user,user,rating", "expected user,item,rating"),
        ("userId,filmId,rating", "expected names of the header, numbers from 1 to 3, or user,item,rating"),
        ("1,2,4", "numbers from 1 to 3"),
        ("item,user,rating", "contradicts the header 'userId', 'movieId', 'rating'"),
    ],
)
def test_columns_that_do_not_fit(tmp_path, columns, expected):
    with pytest.raises(UsageError) as raised:
        read(write(tmp_path, "userId,movieId,rating\n1,2,3\n"), columns=columns)
    assert raised.value.argument == "columns"
    assert expected in raised.value.message


@pytest.mark.parametrize("broken", ["", "broken\n", "1,2\n"])
def test_identifiers_are_kept(tmp_path, broken):
    large = 1234567890123456789
    content = f"user_id,item_id,rating\n{large},1,4\n{broken}{large - 1},1,3\n"
    matrix, _ = load(write(tmp_path, content))
    assert matrix.users == [large - 1, large]
    content = f"007,x 1,4\n{broken}7,x 1,3\n1.0,x 1,3\n"
    matrix, _ = load(write(tmp_path, content))
    assert (matrix.users, matrix.items) == (["007", "1.0", "7"], ["x 1"])
    matrix, _ = load(write(tmp_path, f"99999999999999999999,-3,4\n{broken}5,0,4\n"))
    assert (matrix.users, matrix.items) == ([5, 99999999999999999999], [-3, 0])


def test_identifiers_of_left_out_lines_change_nothing(tmp_path):
    matrix, said = load(write(tmp_path, "7,1,4\noops,x,bad\n8,1,\n9,2,5\n"))
    assert (matrix.users, matrix.items, len(said)) == ([7, 9], [1, 2], 1)


def test_identifiers_of_any_text(tmp_path):
    names = ["Müller, A.", 'the "best"', "a;b", "日本", "o'neil"]
    quoted = ['"' + name.replace('"', '""') + '"' for name in names]
    content = "user,item,rating\n" + "".join(f"{name},1,{i}\n" for i, name in enumerate(quoted))
    expected = {(name, 1): float(i) for i, name in enumerate(names)}
    assert read(write(tmp_path, content)) == (expected, [])
    assert read(write(tmp_path, content.encode("utf-8-sig"))) == (expected, [])
    assert read(write(tmp_path, content.encode("utf-16"))) == (expected, [])
    latin = "user,item,rating\nMüller,1,2\nMÃ¼ller,1,3\n".encode("latin-1")
    assert read(write(tmp_path, latin)) == ({("Müller", 1): 2, ("MÃ¼ller", 1): 3}, [])


def test_a_byte_order_mark_is_not_part_of_the_first_identifier(tmp_path):
    assert read(write(tmp_path, "\ufeff7,1,4\n8,1,3\n"))[0] == {(7, 1): 4, (8, 1): 3}
    assert read(write(tmp_path, "\ufeffuserId,movieId,rating\n7,1,4\n"))[0] == {(7, 1): 4}
    assert read(write(tmp_path, "7,1,4\n\ufeff8,1,3\n"))[0] == {(7, 1): 4, (8, 1): 3}  # two files, one after the other


BROKEN = [  # {s}: separator
    "garbage", "\x00\ufffd", "7{s}20", "7{s}20{s}nan{s}9", "7{s}20{s}-inf{s}9", "7{s}20{s}1e39{s}9", "7{s}20{s}{s}9",
    "7{s}{s}3{s}9", "{s}20{s}3{s}9", "7{s}20{s}1_0{s}9", "7{s}20{s}0x1{s}9", "7{s}20{s}3{s}97{s}20{s}3{s}9",
    '"7{s}20{s}3{s}9', '7{s}"20{s}3{s}9', "7\x00{s}20{s}3{s}9", "userId{s}movieId{s}rating{s}timestamp", '"',
    "٣{s}1{s}٣{s}1",
]  # fmt: skip


@pytest.mark.parametrize("header", ["", HEADERS["MovieLens"]], ids=["no header", "header"])
@pytest.mark.parametrize("separator", ["::", "\t", ",", ";"])
def test_a_broken_line_is_named_and_nothing_else_is_lost(tmp_path, separator, header):
    good = text(separator, header).splitlines(keepends=True)
    for broken, place in itertools.product(BROKEN, (1, 3, len(good))):
        content = [*good[:place], broken.format(s=separator) + "\n", *good[place:]]
        found, said = read(write(tmp_path, "".join(content)))
        assert found == EXPECTED, broken
        assert len(said) == 1
        assert said[0].startswith("1 line left out, expected 4 fields")
        assert f": {place + 1} (line {place + 1} is " in said[0]


def test_lines_that_are_not_utf8(tmp_path):
    found, said = read(write(tmp_path, b"7,1,4\n\xff\xfe\n8,1,3\n\xe9,2\n"))
    assert found == {(7, 1): 4, (8, 1): 3}
    assert "2 lines left out" in said[0]


def test_what_precedes_the_header_is_named(tmp_path):
    found, said = read(write(tmp_path, "garbage\n\nmovieId,userId,rating\n30,7,4\n"))
    assert found == {(7, 30): 4}
    assert "1 line left out" in said[0]
    assert "line 1 is 'garbage'" in said[0]


def test_many_broken_lines_are_counted_and_the_first_named(tmp_path):
    content = text("\t").splitlines(keepends=True) * 8
    found, said = read(write(tmp_path, "".join(line + "broken\n" for line in content)))
    assert found == EXPECTED
    assert "32 lines left out" in said[0]
    assert "2, 4, 6, 8, 10, 12, 14, 16, 18, 20, ... (line 2 is 'broken')" in said[0]
    assert said[1] == "28 ratings left out, given again further down"


def test_blocks_join_without_a_seam(tmp_path, monkeypatch):
    rows = [(user, item, (user * item) % 7 / 2) for user in range(40) for item in range(5)]
    content = "".join(f"{u},{i},{r}\r\n" + "oops\n" * (u == i) for u, i, r in rows)
    for size in (1, 7, 64, 1000):
        monkeypatch.setattr(lines, "BLOCK", size)
        found, said = read(write(tmp_path, content))
        assert found == {(u, i): r for u, i, r in rows}
        assert "5 lines left out" in said[0]
        assert ": 2, 9, 16, 23, 30 (" in said[0]


def test_the_last_of_several_ratings_for_a_place_counts(tmp_path):
    found, said = read(write(tmp_path, "2,10,1.5\n7,30,1\n2,10,0\n2,10,0.5\n7,30,4\n"))
    assert found == {(2, 10): 0.5, (7, 30): 4}
    assert said == ["3 ratings left out, given again further down"]


def test_a_rating_of_zero_is_a_rating(tmp_path):
    assert read(write(tmp_path, "1,1,0\n2,2,3\n"))[0] == {(1, 1): 0, (2, 2): 3}


def test_a_value_that_marks_missing_ratings(tmp_path):
    path = write(tmp_path, "1,2,99\n1,3,4\n2,3,-5\n")
    found, said = read(path, format="missing=99")
    assert found == {(1, 3): 4, (2, 3): -5}
    assert said == ["1 rating of 99 left out: --format missing=99"]
    assert read(path, format="missing=nan") == ({(1, 2): 99, (1, 3): 4, (2, 3): -5}, [])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "expected ratings, found none"),
        ("\n \n", "expected ratings, found none"),
        ("a\tb\tc\n", "line 1 is 'a\\tb\\tc'"),
        ("userId,movieId,rating\n", "expected ratings below the header 'userId', 'movieId', 'rating', found none"),
        ("userId,movieId,rating\n1,2,\n", "expected ratings"),
        ("user_id:token\titem_id:token\ttimestamp:float\n196\t242\t881250949\n", "found no rating among the columns"),
        ("7;30;a,5\n8;30;b,5\n", "column 3 holds no numbers"),
        ("a,b,c\n1,2,3\n4,5,6\n", "the header names no user, item and rating: 'a', 'b', 'c'"),
        ("userId,movieId,rating,time\n1,2,3\n1,3,4\n", "the header has 4 names"),
        ("1 2\n3 4\n", "expected lines with a user, an item and a rating"),
    ],
)
def test_a_file_without_a_rating(tmp_path, content, expected):
    with pytest.raises(UsageError) as raised:
        read(write(tmp_path, content))
    assert raised.value.code == "bad-data"
    assert raised.value.argument == "data"
    assert raised.value.message.startswith(f"{tmp_path}/ratings: ")
    assert expected in raised.value.message


def test_a_binary_file_is_not_read_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "LONGEST_LINE", 1 << 16)
    monkeypatch.setattr(lines, "BLOCK", 1 << 12)
    with pytest.raises(UsageError, match="without a line end"):
        read(write(tmp_path, b"\x00" * (1 << 20)))


@pytest.mark.parametrize(
    "content",
    [
        "7;30;4,0\n2;10;0,5\n7;10;5\n11;20;3,5\n",
        "userId;movieId;rating\n7;30;4,000\n2;10;0,500\n7;10;5,000\n11;20;3,500\n",  # 0,500 has no thousands
        '"user";"item";"rating"\n"7";"30";"4,0"\n"2";"10";"0,5"\n"7";"10";"5,0"\n"11";"20";"3,5"\n',  # R's write.csv2
        "7\t30\t4\t1260759144\n2\t10\t,5\t1260759145\n7\t10\t5\t1260759146\n11\t20\t3,5\t1260759147\n",
        "7::30::4,0\n2::10::5,0e-1\n7::10::5\n11::20::3,5\n",
        "7 30 4,0\n2 10 0,5\n7 10 5\n11 20 3,5\n",
        'userId,movieId,rating\n7,30,"4,0"\n2,10,"0,5"\n7,10,5\n11,20,"3,5"\n',
        "7;30;4.0\n2;10;0,5\n7;10;5\n11;20;3.5\n",
        "7;30;4,0\n2;10;0,5\n" + "7;10;5\n" + "11;20;3,500\n",
    ],
)
def test_decimals_after_a_comma(tmp_path, content):
    assert read(write(tmp_path, content)) == (EXPECTED, [])


def test_decimal_commas_that_come_late(tmp_path, monkeypatch):
    """Neither in the lines that decide the layout nor in the first block."""
    monkeypatch.setattr(lines, "BLOCK", 100)
    content = "".join(f"{user};1;4\n" for user in range(500)) + "7;2;4,5\n"
    found, said = read(write(tmp_path, content))
    assert (found[7, 2], said) == (4.5, [])


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("7;30;2.25\n" + "8;30;3,5\n" + "9;30;1,500\n", 3),
        ("7;30;1,500\n8;30;2,000\n", 1),
        ("user;item;rating\n7;30;3\n8;30;2,000\n", 3),
        ("7;30;2.25\n8;30;1,500\n9;30;2,5\n", 2),  # decimals after a point, too
    ],
)
def test_commas_that_may_separate_thousands_are_refused(tmp_path, content, line):
    with pytest.raises(UsageError, match=f"more than one reading of the rating '.,.00' in line {line}: ") as error:
        load(write(tmp_path, content))
    assert error.value.code == "ambiguous-data"


def test_commas_of_two_kinds_of_numbers_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"more than one reading: .*comma.* or .*blanks"):
        load(write(tmp_path, "7 30 3,5 4,0\n8 30 4,5 2,0\n"))
    assert read(write(tmp_path, "7 30 3,5 4,0\n"), columns="user,item,rating,_", format="blanks")[0] == {(7, 30): 3.5}
    assert read(write(tmp_path, "7;30;1.234,5\n8;30;1,234,5\n9;30;2,5\n"), format="semicolon")[0] == {(9, 30): 2.5}
