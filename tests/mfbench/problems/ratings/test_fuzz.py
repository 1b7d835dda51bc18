"""Any ratings, written in any layout that is read, read back as the same ratings; broken lines alone are left out."""

import csv
import io

import numpy as np
import pytest
import scipy.io
import scipy.sparse
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from mfbench.errors import UsageError
from tests.mfbench.problems.ratings.common import read, write

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402

SETTINGS = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
RATINGS = st.floats(width=32, allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, 0.5, 4.0, -0.0, 1e-45])
INTEGERS = st.integers(0, 5) | st.integers(-(10**20), 10**20)
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=6)
SHAPE = (9, 10)  # not square: SciPy's mmwrite loses stored zeros of a square matrix that it finds symmetric
ALL_RATINGS = "missing=nan"  # no value stands for a missing rating


def triples(users, items):
    return st.lists(st.tuples(users, items, RATINGS), min_size=1, max_size=12)


TABLES = triples(INTEGERS, INTEGERS) | triples(WORDS, INTEGERS) | triples(INTEGERS, WORDS) | triples(WORDS, WORDS)


def plain(identifiers):
    """Return identifiers as they come back: integers where all are written as integers."""
    text = [str(identifier) for identifier in identifiers]
    canonical = all(word.isascii() and word.lstrip("-").isdigit() and str(int(word)) == word for word in text)
    return [int(word) for word in text] if canonical else text


def expected(table):
    users, items, ratings = zip(*table, strict=True)
    return {
        (user, item): float(np.float32(rating))
        for user, item, rating in zip(plain(users), plain(items), ratings, strict=True)
    }


def as_text(table, separator, header, order, quote_all, newline):
    """Return the lines of a file, written by Python's csv module where it can."""
    names = ["userId", "movieId", "rating", "timestamp"]
    rows = [[names[i] for i in order]] * header
    rows += [[(*triple, 1260759144)[i] for i in order] for triple in table]
    if len(separator) > 1:
        return [separator.join(map(str, row)) + newline for row in rows]
    lines = []
    for row in rows:
        sink = io.StringIO()
        quoting = csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL
        csv.writer(sink, delimiter=separator, quoting=quoting, lineterminator=newline).writerow(row)
        lines.append(sink.getvalue())
    return lines


BROKEN = ["garbage", "", "{s}{s}{s}", "x{s}x{s}x{s}x", "7{s}20", "7{s}20{s}3{s}9{s}7{s}20", "x{s}{s}{s}x", '"{s}1']


@SETTINGS
@given(
    TABLES, st.sampled_from(["\t", ",", ";", "::"]), st.permutations(range(4)), st.booleans(),
    st.sampled_from(["\n", "\r\n"]), st.lists(st.tuples(st.integers(1, 13), st.sampled_from(BROKEN)), max_size=6),
)  # fmt: skip
@example([(1, 1, -0.0), (2, 1, 1e-45), (1, 1, 2.0)], "\t", [0, 1, 2, 3], False, "\n", [])
def test_text_with_a_header(tmp_path, table, separator, order, quote_all, newline, broken):
    if separator == "::":
        table = [tuple(str(x).replace(":", "").replace('"', "") or "0" for x in row[:2]) + row[2:] for row in table]
    lines = as_text(table, separator, True, order, quote_all, newline)
    broken = [(place, line.format(s=separator)) for place, line in broken]
    for place, line in broken:
        lines.insert(place, line + newline)
    found, said = read(write(tmp_path, "".join(lines)), format=ALL_RATINGS)
    assert found == expected(table)
    named = sum(bool(line.strip()) for _, line in broken)
    lost = [message for message in said if "left out, expected" in message]
    assert [message.split(" ")[0] for message in lost] == [str(named)] * bool(named)
    repeated = len(table) - len(expected(table))
    assert len(said) == len(lost) + bool(repeated)


@SETTINGS
@given(triples(INTEGERS, INTEGERS), st.sampled_from(["\t", "::", " ", ";"]), st.booleans())
def test_text_without_a_header(tmp_path, table, separator, with_time):
    order = [0, 1, 2, 3] if with_time else [0, 1, 2]
    table = [(user, item, abs(rating) % 1e6) for user, item, rating in table]
    lines = as_text(table, separator, False, order, False, "\n")
    found, _ = read(write(tmp_path, "".join(lines)), columns="user,item,rating", format=ALL_RATINGS)
    assert found == expected(table)


@SETTINGS
@given(triples(INTEGERS, WORDS), st.sampled_from(["\t", ";"]), st.booleans(), st.booleans())
def test_text_with_decimal_commas(tmp_path, table, separator, header, quote_all):
    assume(header or not any("," in item for _, item, _ in table))  # else a line may have three fields either way
    table = [(user, item, f"{rating % 1e6:.2f}") for user, item, rating in table]
    written = [(user, item, rating.replace(".", ",")) for user, item, rating in table]
    lines = as_text(written, separator, header, [0, 1, 2], quote_all, "\n")
    found, _ = read(write(tmp_path, "".join(lines)), columns=None if header else "user,item,rating", format=ALL_RATINGS)
    assert found == expected(table)


@SETTINGS
@given(TABLES)
def test_parquet(tmp_path, table):
    users, items, ratings = zip(*table, strict=True)
    columns = {"rating": ratings, "item_id": list(map(str, items)), "user_id": list(map(str, users))}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", format=ALL_RATINGS)[0] == expected(table)


@SETTINGS
@given(triples(st.integers(1, 9), st.integers(1, 9)), st.sampled_from(["csr", "csc", "coo"]))
def test_sparse_matrices(tmp_path, table, kind):
    table = [(user, item, rating) for (user, item), rating in expected(table).items()]
    users, items, ratings = (np.array(column) for column in zip(*table, strict=True))
    matrix = scipy.sparse.coo_array((ratings, (users - 1, items - 1)), shape=SHAPE)
    scipy.sparse.save_npz(tmp_path / "a.npz", matrix.asformat(kind))
    found, _ = read(tmp_path / "a.npz", format=ALL_RATINGS)
    assert {(user + 1, item + 1): rating for (user, item), rating in found.items()} == expected(table)
    scipy.io.mmwrite(tmp_path / "a.mtx", matrix, precision=17)
    assert read(tmp_path / "a.mtx", format=ALL_RATINGS)[0] == expected(table)


@SETTINGS
@given(triples(st.integers(0, 4), st.integers(0, 4)))
def test_dense_arrays(tmp_path, table):
    values = np.full((5, 5), np.nan, dtype=np.float32)
    for user, item, rating in table:
        values[user, item] = rating
    np.save(tmp_path / "a.npy", values)
    assert read(tmp_path / "a.npy", format="dense")[0] == expected(table)
    np.savez(tmp_path / "b.npz", ratings=np.nan_to_num(values, nan=3), mask=~np.isnan(values))
    assert read(tmp_path / "b.npz")[0] == expected(table)


@SETTINGS
@given(triples(st.integers(1, 9), st.integers(1, 3)))
def test_netflix(tmp_path, table):
    table = sorted(((user, item, abs(rating) % 6) for user, item, rating in table), key=lambda triple: triple[1])
    lines, last = [], None
    for user, item, rating in table:
        lines += [f"{item}:\n"] * (item != last) + [f"{user},{rating},2005-09-06\n"]
        last = item
    found, _ = read(write(tmp_path, "".join(lines)), format="netflix")
    assert found == expected(table)


ANY_TEXT = st.text(max_size=200) | st.text("01,;:\t \n\"'.eE-%#", max_size=80)


@settings(SETTINGS, max_examples=200)
@given(st.binary(max_size=200) | ANY_TEXT.map(str.encode))
def test_any_bytes_are_read_or_refused_in_one_line(tmp_path, content):
    found, refused = {}, ""
    try:
        found, _ = read(write(tmp_path, content))
    except UsageError as error:
        refused = error.message
    assert found or (refused and "\n" not in refused)
