"""NumPy's arrays, SciPy's sparse matrices and MatrixMarket."""

import re

import numpy as np
import pytest
import scipy.io
import scipy.sparse
import torch

from mfbench.errors import UsageError
from tests.mfbench.problems.ratings.common import load, read, write

VALUES = np.array([[1.0, np.nan, 2.0], [np.nan, 0.0, 4.5]])
OBSERVED = np.array([[1, 0, 1], [0, 1, 1]])
EXPECTED = {(0, 0): 1, (0, 2): 2, (1, 1): 0, (1, 2): 4.5}


def test_dense_arrays(tmp_path):
    np.save(tmp_path / "a.npy", VALUES)
    np.savez(tmp_path / "b.npz", ratings=VALUES)
    np.savez(tmp_path / "c.npz", ratings=np.nan_to_num(VALUES, nan=7), mask=OBSERVED * 5)
    np.savez_compressed(tmp_path / "d.npz", ratings=np.asfortranarray(VALUES), mask=OBSERVED > 0)
    np.savez(tmp_path / "e.npz", ratings=np.nan_to_num(VALUES), mask=OBSERVED.astype(float))
    for name in ("a.npy", "b.npz", "c.npz", "d.npz", "e.npz"):
        matrix, said = load(tmp_path / name)
        assert matrix.ratings.shape == (2, 3)
        assert matrix.ratings.to_dense().tolist() == [[1, 0, 2], [0, 0, 4.5]]
        assert read(tmp_path / name) == (EXPECTED, said)
        assert said == []


@pytest.mark.parametrize(
    ("values", "readings"),
    [
        ([[3, 99], [1, 2]], ["1 value of 99 beside ratings from 1 to 3", "missing=99"]),
        ([[3.5, -9], [99, 99]], ["2 values of 99"]),
        ([[3.0, 0], [0, 2]], ["2 places of 0 in a matrix without NaN or a mask", "missing=0"]),
        (np.array([[3, 0], [1, 2]], dtype=np.int8), ["1 place of 0"]),
        ([[3, -1], [1, 5]], ["1 value of -1", "missing=-1"]),
        ([[True, False], [True, True]], ["1 place of 0"]),
        ([[1, 1, 5], [1, 2, 4], [2, 1, 3], [2, 2, 1]], ["--format triplets", "--format dense"]),
        ([[1, 1, 5, 9], [1, 2, 4, 9], [2, 1, 3, 9], [2, 2, 1, 9], [3, 1, 5, 9]], ["user, item, rating"]),
    ],
)
def test_look_alikes_are_an_error_that_lists_the_readings(tmp_path, values, readings):
    np.save(tmp_path / "a.npy", np.array(values))
    with pytest.raises(UsageError) as raised:
        read(tmp_path / "a.npy")
    assert raised.value.code == "ambiguous-data"
    for reading in ["more than one reading", *readings]:
        assert reading in raised.value.message


def test_the_user_says_what_is_missing(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[3, 99], [0, 2]]))
    assert read(tmp_path / "a.npy", format="missing=99") == (
        {(0, 0): 3, (1, 0): 0, (1, 1): 2}, ["1 rating of 99 left out: --format missing=99"]
    )  # fmt: skip
    assert read(tmp_path / "a.npy", format="jester")[0] == {(0, 0): 3, (1, 0): 0, (1, 1): 2}
    for format in ("dense", "missing=nan"):
        assert read(tmp_path / "a.npy", format=format) == ({(0, 0): 3, (0, 1): 99, (1, 0): 0, (1, 1): 2}, [])
    assert read(tmp_path / "a.npy", format="missing=0")[0] == {(0, 0): 3, (0, 1): 99, (1, 1): 2}


def test_triplets(tmp_path):
    triplets = np.array([[7, 1, 5], [7, 2, 0], [2, 1, 3], [2, 2, 1], [7, 1, 4]])
    expected = {(7, 1): 4, (7, 2): 0, (2, 1): 3, (2, 2): 1}
    np.save(tmp_path / "a.npy", triplets)
    np.save(tmp_path / "b.npy", triplets[:, [2, 1, 0]])
    fields = np.dtype([("rating", "f4"), ("item", "i8"), ("user", "U3"), ("time", "i8")])
    rows = [(rating, item, str(user), 0) for user, item, rating in triplets.tolist()]
    np.save(tmp_path / "c.npy", np.array(rows, dtype=fields))
    np.savez(tmp_path / "d.npz", user=triplets[:, 0], item=triplets[:, 1], rating=triplets[:, 2])
    np.savez(tmp_path / "e.npz", r=triplets[:, 2], u=triplets[:, 0], i=triplets[:, 1])
    repeated = ["1 rating left out, given again further down"]
    pytest.importorskip("pyarrow")
    assert read(tmp_path / "a.npy", format="triplets") == (expected, repeated)
    assert read(tmp_path / "b.npy", columns="rating,item,user") == (expected, repeated)
    assert read(tmp_path / "b.npy", columns="3,2,1") == (expected, repeated)
    assert read(tmp_path / "c.npy") == (expected, repeated)
    assert read(tmp_path / "d.npz") == (expected, repeated)
    assert read(tmp_path / "e.npz", columns="u,i,r") == (expected, repeated)


def test_ratings_that_are_not_finite_are_named(tmp_path):
    values = np.array([[1.0, np.inf, 1e39], [np.nan, 2.0, 3.0]])
    np.savez(tmp_path / "a.npz", ratings=values, mask=np.ones((2, 3)))
    found, said = read(tmp_path / "a.npz")
    assert found == {(0, 0): 1, (1, 1): 2, (1, 2): 3}
    assert said == ["3 ratings not finite in float32, left out: [0, 1], [0, 2], [1, 0]"]
    np.save(tmp_path / "b.npy", values)
    assert read(tmp_path / "b.npy")[1] == ["2 ratings not finite in float32, left out: [0, 1], [0, 2]"]


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"ratings": np.ones(3)}, "expected ratings of 2 dimensions, got shape (3,)"),
        ({"ratings": np.ones((2, 3)), "mask": np.ones((3, 2))}, "mask of shape (2, 3) as the ratings, got (3, 2)"),
        ({"ratings": np.ones((2, 2)), "mask": np.full((2, 2), 0.5)}, "a rating file has no weights"),
        ({"values": np.ones((2, 3))}, "expected an array 'ratings', got values"),
        ({"ratings": np.full((2, 2), "x")}, "expected real numbers in 'ratings', got <U1"),
        ({"ratings": np.ones((2, 2), dtype=complex)}, "expected real numbers in 'ratings', got complex128"),
        ({"ratings": np.full((2, 2), np.nan)}, "expected ratings, found none"),
        ({"ratings": np.ones((0, 4))}, "expected ratings, found none"),
        ({"ratings": np.array([[print]])}, "allow_pickle=False"),
        ({"user": np.ones(3), "item": np.ones(3), "rating": np.ones(2)}, "one length, got user (3,), item (3,)"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, arrays, expected):
    np.savez(tmp_path / "a.npz", **arrays)
    if "user" in arrays:
        pytest.importorskip("pyarrow")
    with pytest.raises(UsageError) as raised:
        read(tmp_path / "a.npz")
    assert expected in raised.value.message
    assert "a.npz" in raised.value.message


@pytest.mark.parametrize("content", [b"\x93NUMPY\x01\x00", b"\x93NUMPY", b"PK\x03\x04torn"])
def test_torn_arrays(tmp_path, content):
    with pytest.raises(UsageError, match="cannot read"):
        read(write(tmp_path, content))


ROWS, COLUMNS, STORED = [0, 2, 0, 2], [1, 0, 0, 2], [4.0, 0.0, 2.5, 1.0]
SPARSE = {(0, 1): 4, (2, 0): 0, (0, 0): 2.5, (2, 2): 1}


@pytest.mark.parametrize("kind", ["csr", "csc", "coo"])
@pytest.mark.parametrize("build", [scipy.sparse.coo_array, scipy.sparse.coo_matrix])
def test_scipy_keeps_stored_zeros_and_empty_rows(tmp_path, kind, build):
    matrix = build((STORED, (ROWS, COLUMNS)), shape=(4, 3))
    scipy.sparse.save_npz(tmp_path / "a.npz", matrix.asformat(kind))
    found, said = load(tmp_path / "a.npz")
    assert (found.users, found.items, said) == ([0, 1, 2, 3], [0, 1, 2], [])
    assert read(tmp_path / "a.npz")[0] == SPARSE


@pytest.mark.parametrize("kind", ["bsr", "dia"])
def test_scipys_formats_that_lose_zeros_are_refused(tmp_path, kind):
    scipy.sparse.save_npz(tmp_path / "a.npz", scipy.sparse.csr_array(np.eye(4)).asformat(kind))
    with pytest.raises(UsageError, match=f"{kind!r} does not tell a rating of 0 from none; expected csr, csc, coo"):
        read(tmp_path / "a.npz")


def test_scipys_repeated_places_are_not_added_up(tmp_path):
    scipy.sparse.save_npz(tmp_path / "a.npz", scipy.sparse.coo_array(([1.0, 2.0, 3.0], ([0, 1, 0], [1, 1, 1]))))
    expected = ({(0, 1): 3, (1, 1): 2}, ["1 rating left out, given again further down"])
    assert read(tmp_path / "a.npz") == expected
    unsorted = scipy.sparse.csr_array((np.array([1.0, 5.0, 3.0]), np.array([1, 0, 1]), np.array([0, 3])), shape=(1, 2))
    scipy.sparse.save_npz(tmp_path / "b.npz", unsorted)
    assert read(tmp_path / "b.npz") == ({(0, 1): 3, (0, 0): 5}, ["1 rating left out, given again further down"])


def test_matrix_market(tmp_path):
    matrix = scipy.sparse.coo_array((STORED, (ROWS, COLUMNS)), shape=(4, 3))
    scipy.io.mmwrite(tmp_path / "a.mtx", matrix)
    found, said = load(tmp_path / "a.mtx")
    assert (found.users, found.items, said) == ([1, 2, 3, 4], [1, 2, 3], [])
    assert read(tmp_path / "a.mtx")[0] == {(user + 1, item + 1): rating for (user, item), rating in SPARSE.items()}
    scipy.io.mmwrite(tmp_path / "b.mtx", np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert read(tmp_path / "b.mtx")[0] == {(1, 1): 1, (1, 2): 2, (2, 1): 3, (2, 2): 4}
    scipy.io.mmwrite(tmp_path / "c.mtx", np.array([[1.0, 0.0], [3.0, 4.0]]))
    with pytest.raises(UsageError, match="1 place of 0"):
        read(tmp_path / "c.mtx")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("%%MatrixMarket matrix coordinate pattern general\n2 2 1\n1 1\n", "a matrix of no values"),
        ("%%MatrixMarket matrix coordinate complex general\n2 2 1\n1 1 1 0\n", "a matrix of complex numbers"),
        ("%%MatrixMarket matrix coordinate real general\n2 2 2\n1 1 1\n", "cannot read"),
        ("%%MatrixMarket matrix coordinate real general\n2 2 1\n3 1 1\n", "cannot read"),
        ("%%MatrixMarket matrix coordinate real general\n2 2 1\n1 x 1\n", "cannot read"),
        ("%%MatrixMarket matrix coordinate real general\n2 2 0\n", "found none"),
    ],
)
def test_matrix_market_without_ratings(tmp_path, content, expected):
    with pytest.raises(UsageError, match=expected):
        read(write(tmp_path, content))


def test_the_largest_index_fits(tmp_path):
    scipy.sparse.save_npz(tmp_path / "a.npz", scipy.sparse.coo_array(([2.0], ([1], [69_999])), shape=(2, 70_000)))
    matrix, _ = load(tmp_path / "a.npz")
    assert matrix.ratings.col_indices().tolist() == [69_999]
    assert torch.equal(matrix.ratings.crow_indices(), torch.tensor([0, 0, 1], dtype=torch.int32))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize("fill", [-99, 999, -9999, 255, 2**31 - 1, -(2**31)])
def test_other_fill_values_beside_ratings_are_refused(tmp_path, fill, dtype):
    values = np.array([[1, 5, fill], [3, fill, 2]], dtype)
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(UsageError, match=re.escape(f"2 values of {fill:g} beside ratings from 1 to 5")) as error:
        read(tmp_path / "a.npy")
    said = re.search("--format (missing=[^ ]+) if it marks", error.value.message)
    assert read(tmp_path / "a.npy", format=said[1])[0] == {(0, 0): 1, (0, 1): 5, (1, 0): 3, (1, 2): 2}
    assert len(read(tmp_path / "a.npy", format="missing=nan")[0]) == 6


@pytest.mark.parametrize("fill", [-999, 2**31 - 1])
def test_stored_fill_values_are_refused(tmp_path, fill):
    scipy.sparse.save_npz(tmp_path / "a.npz", scipy.sparse.coo_array(np.array([[1, 5, fill], [0, fill, 2]])))
    with pytest.raises(UsageError, match=r"2 values of .* beside ratings from 1 to 5") as error:
        read(tmp_path / "a.npz")
    said = re.search("--format (missing=[^ ]+) if it marks", error.value.message)
    assert read(tmp_path / "a.npz", format=said[1])[0] == {(0, 0): 1, (0, 1): 5, (1, 2): 2}


@pytest.mark.parametrize("values", [[1, 80, 255], [-99, -40, 5], [1, 300, 999], [255, 255, 255], [0.5, 127]])
def test_a_value_of_the_same_magnitude_is_a_rating(tmp_path, values):
    path = tmp_path / "a.tsv"
    path.write_text("user\titem\trating\n" + "".join(f"{i}\t1\t{value}\n" for i, value in enumerate(values)))
    assert list(read(path)[0].values()) == values


def test_a_fill_value_beside_nan_is_refused_too(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[1, np.nan, 99], [99, 4, 0]]))
    with pytest.raises(UsageError, match="2 values of 99 beside ratings from 0 to 4"):
        read(tmp_path / "a.npy")


def test_a_mask_of_another_name_is_not_ignored(tmp_path):
    values, observed = np.array([[1.0, 5.0, 2.0], [3.0, 4.0, 2.0]]), np.array([[1, 0, 1], [1, 1, 0]])
    np.savez(tmp_path / "a.npz", ratings=values, observed=observed)
    with pytest.raises(UsageError, match="expected the mask of 'ratings' as 'mask', got observed of the same shape"):
        read(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", ratings=values, mask=observed, titles=np.array(["a", "b", "c"]))
    assert len(read(tmp_path / "b.npz")[0]) == 4


@pytest.mark.parametrize(
    ("mask", "read_as"),
    [
        (np.array([[1, 0, 1], [0, 255, 255]], np.uint8), EXPECTED),
        (np.array([[1, -0.0, 1], [0, 1, 1]], np.float16), EXPECTED),
        (np.array([[1, 0, 1], [0, 1, np.nan]]), "a rating file has no weights"),
        (np.array([[1, 0, -1], [0, 1, 1]], np.float16), "a rating file has no weights"),
        (np.array([["1", "0", "1"], ["0", "1", "1"]]), "expected real numbers in 'mask', got <U1"),
    ],
)
def test_masks_as_tools_write_them(tmp_path, mask, read_as):
    np.savez(tmp_path / "a.npz", ratings=np.nan_to_num(VALUES), mask=mask)
    if isinstance(read_as, dict):
        assert read(tmp_path / "a.npz") == (read_as, [])
        return
    with pytest.raises(UsageError) as raised:
        read(tmp_path / "a.npz")
    assert read_as in raised.value.message


@pytest.mark.parametrize("name", ["weights", "timestamps"])
def test_arrays_beside_ratings_and_mask_are_named(tmp_path, name):
    np.savez(tmp_path / "a.npz", ratings=np.nan_to_num(VALUES), mask=OBSERVED, **{name: VALUES})
    assert read(tmp_path / "a.npz") == (EXPECTED, [f"{name} left out, of the same shape as 'ratings'"])
