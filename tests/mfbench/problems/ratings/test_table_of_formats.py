"""The table of docs/data.md: each row writes a file with the writer it names and reads the same ratings back."""

import re
import zipfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse

from tests.mfbench.problems.ratings.common import read

pd = pytest.importorskip("pandas")
pa = pytest.importorskip("pyarrow")

PAGE = Path(__file__).parents[4] / "docs" / "data.md"
TRIPLES = [(1, 2, 4.0), (1, 3, 0.5), (2, 1, 5.0), (3, 2, 3.0), (3, 3, 4.0)]
EXPECTED = {(user, item): rating for user, item, rating in TRIPLES}
FRAME = pd.DataFrame(TRIPLES, columns=["userId", "movieId", "rating"]).assign(timestamp=1260759144)
USERS, ITEMS, RATINGS = (np.array(column) for column in zip(*TRIPLES, strict=True))
SPARSE = scipy.sparse.coo_array((RATINGS, (USERS - 1, ITEMS - 1)), shape=(3, 4))
DENSE = np.full((3, 4), np.nan)
DENSE[USERS - 1, ITEMS - 1] = RATINGS


def lines(form, head="", tail=""):
    text = head + "".join(form.format(u=user, i=item, r=rating) + "\n" for user, item, rating in TRIPLES) + tail
    return lambda path: path.write_text(text)


def zipped(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ratings.csv", FRAME.to_csv(index=False))


NUMBERED = "".join(f'"{n}" {user} {item} {rating}\n' for n, (user, item, rating) in enumerate(TRIPLES, 1))
NETFLIX = "".join(
    f"{item}:\n" + "".join(f"{u},{r},2005-09-06\n" for u, i, r in TRIPLES if i == item) for item in (1, 2, 3)
)
JESTER = "".join(
    ",".join([str(np.isfinite(row).sum()), *(str(99 if np.isnan(value) else value) for value in row)]) + "\n"
    for row in DENSE
)
FROM_ZERO = ("SciPy `.npz`", "`.npy` matrix", "`.npz` with a mask", "`.npy` with 0 for missing")
WRITERS = {
    "CSV with a header": lambda path: FRAME[["timestamp", "movieId", "rating", "userId"]].to_csv(path, index=False),
    "CSV with its index": FRAME.to_csv,
    "CSV with quotes and semicolons": lambda path: FRAME.to_csv(path, sep=";", quoting=1, index=False),
    "R's `write.table`": lambda path: path.write_text('"userId" "movieId" "rating"\n' + NUMBERED),
    "`u.data`, `ratings.dat`": lines("{u}::{i}::{r}::978300760"),
    "cornac's UIR": lines("{u}\t{i}\t{r}"),
    "cornac's UIRT": lines("{u}::{i}::{r}::978300760"),
    "`savetxt`": lambda path: np.savetxt(
        path, np.column_stack([USERS, ITEMS, RATINGS]), fmt=["%d", "%d", "%g"], header="made by NumPy"
    ),
    "pyarrow's CSV": lambda path: pa.csv.write_csv(pa.Table.from_pandas(FRAME), path),
    "RecBole `.inter`": lines("{u}\t{i}\t{r}\t1", "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"),
    "HetRec": lines("{u}\t{i}\t{r}\t29\t10\t2006", "userID\tmovieID\trating\tdate_day\tdate_month\tdate_year\n"),
    "LIBMF": lines("{u} {i} {r}"),
    "Book-Crossing": lines('"{u}";"{i}";"{r}"', '"User-ID";"ISBN";"Book-Rating"\n', '"4";"1";"0"\n'),
    "Netflix": lambda path: path.write_text(NETFLIX),
    "Jester": lambda path: path.write_text(JESTER),
    "MatrixMarket": lambda path: scipy.io.mmwrite(path.open("wb"), SPARSE),
    "SciPy `.npz`": lambda path: scipy.sparse.save_npz(path.open("wb"), SPARSE.tocsr()),
    "`.npy` matrix": lambda path: np.save(path.open("wb"), DENSE),
    "`.npz` with a mask": lambda path: np.savez(path.open("wb"), ratings=np.nan_to_num(DENSE), mask=~np.isnan(DENSE)),
    "`.npy` with 0 for missing": lambda path: np.save(path.open("wb"), np.nan_to_num(DENSE)),
    "`.npy` of triplets": lambda path: np.save(path.open("wb"), np.column_stack([USERS, ITEMS, RATINGS])),
    "`.npy` of records": lambda path: np.save(path.open("wb"), FRAME.to_records(index=False)),
    "`.npz` of columns": lambda path: np.savez(path.open("wb"), user_id=USERS, item_id=ITEMS, rating=RATINGS),
    "Parquet": lambda path: FRAME.set_index(["userId", "movieId"]).to_parquet(path),
    "pyarrow's Parquet": lambda path: pa.parquet.write_table(
        pa.table({"user": pa.array(map(str, USERS)).dictionary_encode(), "item": ITEMS, "rating": RATINGS}), path
    ),
    "compressed text": lambda path: FRAME.to_csv(path, index=False, compression="gzip"),
    "zip": zipped,
}


def rows():
    table = re.search(r"^\| format \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert table
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1].splitlines()]


def test_every_row_has_a_writer_and_every_writer_a_row():
    assert [row[0] for row in rows()] == list(WRITERS)


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_row(tmp_path, row):
    name, option, *_, tried_with = row
    path = tmp_path / "ratings"
    WRITERS[name](path)
    shift = int(name in FROM_ZERO)
    found, said = read(path, format=option.strip("`").removeprefix("--format ") or None)
    assert {(user + shift, item + shift): rating for (user, item), rating in found.items()} == EXPECTED
    assert bool(said) == (name in ("Book-Crossing", "`.npy` with 0 for missing"))
    if "layout" not in tried_with and "read alike" not in tried_with:
        library, tried = tried_with.lower().split()
        if version(library) != tried:
            pytest.skip(f"the page says {library} {tried}; {version(library)} is installed, and reads back the same")


@pytest.mark.parametrize("layout", ["UIR", "UIRT"])
def test_cornac_reads_the_same(tmp_path, layout):
    reader = pytest.importorskip("cornac.data").Reader()
    path = tmp_path / "ratings"
    WRITERS[f"cornac's {layout}"](path)
    found = reader.read(str(path), fmt=layout, sep="::" if layout == "UIRT" else "\t")
    assert {(int(user), int(item)): rating for user, item, rating, *_ in found} == EXPECTED


def test_recbole_reads_the_same(tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        for name, kind in {
            "bool8": np.bool_,
            "float_": np.float64,
            "complex_": np.complex128,
            "unicode_": np.str_,
        }.items():
            patch.setattr(np, name, kind, raising=False)  # RecBole 1.2.1 needs them, and NumPy 2 has removed them
        config, data = pytest.importorskip("recbole.config"), pytest.importorskip("recbole.data")
        (tmp_path / "tiny").mkdir()
        WRITERS["RecBole `.inter`"](tmp_path / "tiny" / "tiny.inter")
        columns = ["user_id", "item_id", "rating", "timestamp"]
        options = {"data_path": str(tmp_path), "load_col": {"inter": columns}, "use_gpu": False}
        dataset = data.create_dataset(config.Config(model="BPR", dataset="tiny", config_dict=options))
    named = [dataset.id2token(column, dataset.inter_feat[column]) for column in columns[:2]]
    found = zip(*named, dataset.inter_feat["rating"].tolist(), strict=True)
    assert {(int(user), int(item)): rating for user, item, rating in found} == EXPECTED
