"""Open a rating file once: a path, a pipe, a compressed file or a member of a zip archive."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

from mfbench.problems.pipes import shown
from mfbench.problems.ratings.errors import BadData
from mfbench.problems.ratings.packages import arrow

LEADING = 16  # bytes that tell one kind of file from another
MAGIC = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
    b"PAR1": "parquet",
    b"\x93NUMPY": "npy",
    b"%%MatrixMarket": "matrixmarket",
}
NOT_READ = {  # kinds that are named in the error, because they would pass for damaged text
    b"\x89HDF": "HDF5",
    b"SQLite format 3": "SQLite",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"ARROW1": "an Arrow or Feather file",
    b"MATLAB": "MATLAB",
    b"\x04\x22\x4d\x18": "lz4",
    b"\x80\x02": "a pickle",
    b"\x80\x03": "a pickle",
    b"\x80\x04": "a pickle",
    b"\x80\x05": "a pickle",
}
ACCEPTED = (
    "text with one rating a line, MatrixMarket, SciPy .npz, NumPy .npy or .npz, Parquet; "
    "also compressed (.gz, .zst, .bz2, .xz, .zip)"
)
DAMAGED = (
    EOFError,
    NotImplementedError,  # zip: unknown compression
    RuntimeError,  # zip: encrypted
    ValueError,
    lzma.LZMAError,
    zipfile.BadZipFile,
    zlib.error,
)


class Stream(io.RawIOBase):
    """Bytes read once, in order, whose first bytes can be seen before they are read."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read, self._ahead = read, b""

    def readable(self) -> bool:
        return True

    def peek(self, size: int) -> bytes:
        while len(self._ahead) < size and (more := self._read(size - len(self._ahead))):
            self._ahead += more
        return self._ahead[:size]

    def read(self, size: int | None = -1) -> bytes:
        """Return `size` bytes, fewer only at the end."""
        if size is None or size < 0:
            pieces = [self._ahead, *iter(lambda: self._read(1 << 20), b"")]
            self._ahead = b""
            return b"".join(pieces)
        self.peek(size)
        taken, self._ahead = self._ahead[:size], self._ahead[size:]
        return taken

    def readinto(self, buffer: Any) -> int:
        taken = self.read(len(buffer))
        buffer[: len(taken)] = taken
        return len(taken)


class Source(NamedTuple):
    """An open rating file. Use `stream` or `seekable()`, not both."""

    name: str
    kind: str  # "text", "parquet", "npy", "npz" or "matrixmarket"
    stream: Stream
    file: BinaryIO | None  # the same bytes where they can be read in any order

    def seekable(self) -> BinaryIO:
        """Return the whole content as a file that can be read in any order."""
        if self.file is None:
            return io.BytesIO(self.stream.read())
        self.file.seek(0)
        return self.file


@contextmanager
def opened(path: Path) -> Iterator[Source]:
    """Open `path`, or a member of a zip archive written as `archive.zip/member`.

    Raises:
        BadData: an archive of several files, or a kind of file that is not read.
        OSError: the system cannot read it.
    """
    path, member = _archive(path)
    with ExitStack() as stack:
        raw: BinaryIO = stack.enter_context(path.open("rb"))
        file = raw if raw.seekable() else None
        yield _identified(shown(str(path)), raw.read, file, member, stack)


def exists(path: Path) -> bool:
    """Return whether there is such a file, or an archive that may hold it."""
    return path.exists() or _archive(path)[0] != path


def _archive(path: Path) -> tuple[Path, str]:
    if not path.exists():
        for parent in path.parents:
            if parent.is_file():
                return parent, path.relative_to(parent).as_posix()
    return path, ""


def _identified(
    name: str, read: Callable[[int], bytes], file: BinaryIO | None, member: str, stack: ExitStack
) -> Source:
    stream = Stream(read)
    leading = stream.peek(LEADING)
    kind = next((kind for magic, kind in MAGIC.items() if leading.startswith(magic)), "text")
    foreign = next((kind for magic, kind in NOT_READ.items() if leading.startswith(magic)), None)
    if foreign:
        raise BadData(f"is {foreign}; expected {ACCEPTED}")
    source = Source(name, kind, stream, file)
    if kind == "zip":
        return _member(source, member, stack)
    if member:
        raise BadData(f"no such file: {name} is not a zip archive")
    if kind in ("gzip", "zstd", "bzip2", "xz"):
        return _identified(name, _decompressed(stream, kind, stack).read, None, "", stack)
    return source


def _decompressed(stream: Stream, kind: str, stack: ExitStack) -> Any:
    if kind == "zstd":
        pa = arrow(".zst files")
        return stack.enter_context(pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), "zstd"))
    if kind == "gzip":
        return stack.enter_context(gzip.GzipFile(fileobj=stream))
    module: Any = bz2.BZ2File if kind == "bzip2" else lzma.LZMAFile
    return stack.enter_context(module(io.BufferedReader(stream)))


def _member(source: Source, wanted: str, stack: ExitStack) -> Source:
    file = source.seekable()
    archive = stack.enter_context(zipfile.ZipFile(file))
    members = [name for name in archive.namelist() if not name.endswith("/")]
    if "[Content_Types].xml" in members:
        raise BadData("is an Excel workbook; save the sheet as CSV")
    if members and all(name.endswith(".npy") for name in members) and not wanted:
        return source._replace(kind="npz", file=file)
    candidates = [name for name in members if not _is_clutter(name)]
    if wanted:
        candidates = [name for name in candidates if name == wanted]
        if not candidates:
            raise BadData(f"no such file: the archive holds {', '.join(members) or 'none'}")
    if len(candidates) != 1:
        held = ", ".join(candidates[:10]) + (", ..." if len(candidates) > 10 else "")
        example = f"; name one as {source.name}/{candidates[0]}" if candidates else ""
        raise BadData(f"expected an archive of one file, got {len(candidates)}: {held or 'none'}{example}")
    content = stack.enter_context(archive.open(candidates[0]))
    return _identified(f"{source.name}/{candidates[0]}", content.read, None, "", stack)


def _is_clutter(name: str) -> bool:
    """Return whether an archiver, not the user, put this file there."""
    path = PurePosixPath(name)
    return path.parts[0] == "__MACOSX" or path.name.startswith(".")
