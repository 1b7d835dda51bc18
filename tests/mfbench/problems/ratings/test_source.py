"""Paths, pipes, compressed files and archives."""

import bz2
import gzip
import io
import lzma
import os
import threading
import zipfile

import numpy as np
import pytest

from mfbench.errors import DataUnavailable, UsageError
from mfbench.problems.ratings import packages
from tests.mfbench.problems.ratings.common import read, write

pyarrow = pytest.importorskip("pyarrow")

ROWS = [(user, item, (user + item) % 9 / 2) for user in range(400) for item in range(10)]
TEXT = "".join(f"{user},{item},{rating}\n" for user, item, rating in ROWS).encode()
EXPECTED = {(user, item): rating for user, item, rating in ROWS}


def zstandard(content):
    sink = io.BytesIO()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
        stream.flush()
        return sink.getvalue() if sink.closed else _closed(stream, sink)


def _closed(stream, sink):
    sink.close = lambda: None
    stream.close()
    return sink.getvalue()


def zipped(content, *names):
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names or ("ratings.csv",):
            archive.writestr(name, content)
    return sink.getvalue()


COMPRESSORS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstandard, "zip": zipped}


@pytest.mark.parametrize("compress", COMPRESSORS.values(), ids=COMPRESSORS)
def test_compressed_files_are_known_by_their_content(tmp_path, compress):
    assert read(write(tmp_path, compress(TEXT), "any name")) == (EXPECTED, [])
    half = len(TEXT) // 2
    if compress is not zipped:  # one part after another, as pigz and parallel downloads leave them
        assert read(write(tmp_path, compress(TEXT[:half]) + compress(TEXT[half:]))) == (EXPECTED, [])
        assert read(write(tmp_path, compress(gzip.compress(TEXT)))) == (EXPECTED, [])


@pytest.mark.parametrize("compress", COMPRESSORS.values(), ids=COMPRESSORS)
def test_damaged_files_are_refused(tmp_path, compress):
    content = compress(TEXT)
    for damaged in (content[: len(content) // 2], content[:-1], content[:6]):
        with pytest.raises(UsageError) as raised:
            read(write(tmp_path, damaged))
        assert raised.value.code in ("unreadable-file", "bad-data")
        assert str(tmp_path) in raised.value.message


def piped(content, pieces=1):
    """Return the path of a pipe into which a thread writes the content."""
    source, sink = os.pipe()

    def feed():
        with open(sink, "wb", buffering=0) as stream:
            size = -(-len(content) // pieces)
            for start in range(0, len(content), size):
                stream.write(content[start : start + size])

    threading.Thread(target=feed, daemon=True).start()
    return source, f"/dev/fd/{source}"


@pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="no /dev/fd")
@pytest.mark.parametrize("pieces", [1, 3, 5000])
def test_a_pipe_is_read_once(pieces):
    for content in (TEXT, gzip.compress(TEXT), zipped(TEXT), b"user,item,rating\n" + TEXT):
        source, path = piped(content, pieces)
        try:
            assert read(path) == (EXPECTED, [])
        finally:
            os.close(source)


@pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="no /dev/fd")
def test_arrays_from_a_pipe():
    sink = io.BytesIO()
    np.savez(sink, ratings=np.array([[1.0, np.nan], [np.nan, 2.0]]))
    source, path = piped(sink.getvalue(), 7)
    assert read(path) == ({(0, 0): 1, (1, 1): 2}, [])
    os.close(source)


def test_members_of_an_archive(tmp_path):
    path = write(tmp_path, zipped(TEXT, "ml/ratings.csv", "ml/movies.csv", "ml/README.txt"), "ml.zip")
    with pytest.raises(UsageError) as raised:
        read(path)
    assert "got 3: ml/ratings.csv, ml/movies.csv, ml/README.txt; name one as" in raised.value.message
    assert read(path / "ml" / "ratings.csv") == (EXPECTED, [])
    with pytest.raises(UsageError, match=r"the archive holds ml/ratings\.csv, ml/movies\.csv"):
        read(path / "tags.csv")
    assert read(write(tmp_path, zipped(TEXT, "__MACOSX/._r", "r.csv", ".DS_Store")))[0] == EXPECTED
    with pytest.raises(UsageError, match="got 0: none"):
        read(write(tmp_path, zipped(TEXT, "folder/")))
    with pytest.raises(UsageError, match="not a zip archive"):
        read(write(tmp_path, TEXT, "r.csv") / "inside")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"SQLite format 3\x00", "SQLite"),
        (b"\x80\x04\x95\x00", "a pickle"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "an old Excel workbook"),
        (b"ARROW1\x00\x00", "an Arrow or Feather file"),
        (zipped(b"", "[Content_Types].xml", "xl/workbook.xml"), "an Excel workbook"),
    ],
)
def test_other_kinds_of_files_are_named(tmp_path, content, kind):
    with pytest.raises(UsageError, match=kind):
        read(write(tmp_path, content))


def test_files_that_cannot_be_opened(tmp_path):
    for path in (tmp_path, tmp_path / "absent", tmp_path / "absent" / "inside"):
        with pytest.raises(UsageError) as raised:
            read(path)
        assert raised.value.code == "unreadable-file"
        assert f"cannot read {path}" in raised.value.message


def test_a_format_that_does_not_exist_or_does_not_fit(tmp_path):
    path = write(tmp_path, "1,2,3\n")
    for format, expected in (
        ("netflx", "did you mean 'netflix'?"), ("missing=x", "expected a number after missing="),
        ("dense", "dense is a form of NumPy arrays, and this is text"),
    ):  # fmt: skip
        with pytest.raises(UsageError) as raised:
            read(path, format=format)
        assert raised.value.argument == "format"
        assert expected in raised.value.message
    np.save(tmp_path / "a.npy", np.array([[1.0, np.nan]]))
    with pytest.raises(UsageError, match="netflix is a form of text, and this is npy"):
        read(tmp_path / "a.npy", format="netflix")


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(packages, "_arrow_is_here", lambda: False)
    with pytest.raises(DataUnavailable, match=r"pyarrow is needed; pip install 'mfbench\[data\]'"):
        read(write(tmp_path, "1,2,3\n"))
    np.save(tmp_path / "a.npy", np.array([[1.0, np.nan]]))
    assert read(tmp_path / "a.npy")[0] == {(0, 0): 1}
