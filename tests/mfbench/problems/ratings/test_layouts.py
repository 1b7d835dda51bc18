"""The layouts of Netflix, Jester, LIBMF and Book-Crossing."""

import pytest

from mfbench.errors import UsageError
from mfbench.problems.ratings import lines
from tests.mfbench.problems.ratings.common import load, read, write

pytest.importorskip("pyarrow")

NETFLIX = "1:\n1488844,3,2005-09-06\n822109,5,2005-05-13\n2:\n885013,4,2005-10-19\n1488844,1,2005-12-26\n"
IN_NETFLIX = {(1488844, 1): 3, (822109, 1): 5, (885013, 2): 4, (1488844, 2): 1}


def test_netflix(tmp_path):
    for content in (NETFLIX, NETFLIX.replace("\n", "\r\n"), "\ufeff" + NETFLIX, NETFLIX.rstrip()):
        assert read(write(tmp_path, content)) == (IN_NETFLIX, [])
    assert read(write(tmp_path, NETFLIX), format="netflix") == (IN_NETFLIX, [])


@pytest.mark.parametrize("size", [50, 60, 90])
def test_an_item_of_netflix_goes_on_in_the_next_block(tmp_path, monkeypatch, size):
    monkeypatch.setattr(lines, "BLOCK", size)
    assert read(write(tmp_path, NETFLIX)) == (IN_NETFLIX, [])
    content = NETFLIX.replace("2:", "oops\n2:").replace("885013,4", "885013,x")
    found, said = read(write(tmp_path, content))
    assert found == {place: rating for place, rating in IN_NETFLIX.items() if place != (885013, 2)}
    assert "2 lines left out" in said[0]
    assert ": 4, 6 (line 4 is 'oops')" in said[0]


def test_ratings_of_netflix_above_the_first_item_belong_to_none(tmp_path):
    found, said = read(write(tmp_path, "7,3,2005-09-06\n" + NETFLIX), format="netflix")
    assert found == IN_NETFLIX
    assert "1 line left out" in said[0]
    with pytest.raises(UsageError, match="found no rating"):
        read(write(tmp_path, "1:\n30878\n2647871\n"))  # as in probe.txt
    with pytest.raises(UsageError, match="found none"):
        read(write(tmp_path, "1:\n1046323,2005-12-19\n"))  # as in qualifying.txt


def test_jester(tmp_path):
    content = "2,5.5,99,-3\n1,99,1.25,99\n3,99,1.25,99\n\n0,99,99,99\n1,x,99,99\n"
    found, said = read(write(tmp_path, content), format="jester")
    assert found == {(1, 1): 5.5, (1, 3): -3, (2, 2): 1.25}
    assert said == [
        "2 lines left out, expected 4 numbers, the first of which counts those of the others that are not 99: "
        "3, 6 (line 3 is '3,99,1.25,99')"
    ]
    for separator in ("\t", ";", " "):
        other = content.replace(",", separator)
        assert read(write(tmp_path, other), format="jester")[0] == found
    wide = "\n".join(",".join(["100", *[str((i * j) % 21 / 2 - 5) for j in range(100)]]) for i in range(20))
    with pytest.raises(UsageError, match=r"no header, and 101 columns.*--format jester"):
        read(write(tmp_path, wide))
    assert len(read(write(tmp_path, wide), format="jester")[0]) == 2000
    with pytest.raises(UsageError, match="the first of which counts"):
        read(write(tmp_path, "a\n"), format="jester")


def test_libmf(tmp_path):
    content = "0 1 4\n0 2 3.5\n1 2 2\n2 0 1e0\n"
    expected = {(0, 1): 4, (0, 2): 3.5, (1, 2): 2, (2, 0): 1}
    assert read(write(tmp_path, content)) == (expected, [])
    assert read(write(tmp_path, content), format="libmf") == (expected, [])
    assert read(write(tmp_path, content.replace(" ", "\t  ")), format="libmf") == (expected, [])


def test_book_crossing(tmp_path):
    content = (
        '"User-ID";"ISBN";"Book-Rating"\n"276725";"034545104X";"0"\n"276726";"0155061224";"5"\n'
        '"276727";"0440\\"23";"7"\n"276727";"M\xfcller";"10"\n"276728";"0440\\"23";"0"\n'
    ).encode("latin-1")
    expected = {(276726, "0155061224"): 5, (276727, '0440"23'): 7, (276727, "Müller"): 10}
    said = ["2 ratings of 0 left out: implicit feedback in Book-Crossing"]
    assert read(write(tmp_path, content)) == (expected, said)
    assert read(write(tmp_path, content), format="book-crossing") == (expected, said)
    found, said = read(write(tmp_path, content), format="missing=nan")
    assert (len(found), said) == (5, [])
    headless = content.split(b"\n", 1)[1]
    assert read(write(tmp_path, headless), format="book-crossing")[0] == expected


def test_separators_by_name(tmp_path):
    path = write(tmp_path, "a,b,3,c;d;4\n")
    assert read(path, format="comma") == ({("a", "b"): 3}, [])
    assert read(path, format="semicolon") == ({("a,b,3,c", "d"): 4}, [])
    matrix, _ = load(write(tmp_path, "a::b::3\n"), format="double-colon")
    assert matrix.users == ["a"]
