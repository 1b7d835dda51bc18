"""Read text in blocks of whole lines and split them into fields, losing and merging no line."""

from __future__ import annotations

import codecs
import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from mfbench.problems.ratings.errors import BadData
from mfbench.problems.ratings.packages import arrow
from mfbench.problems.ratings.source import Stream

BLOCK = 8 << 20  # bytes parsed together
LONGEST_LINE = 64 << 20  # bytes without a line end after which a file is no text
BLANKS = " "  # separator that stands for any run of blanks and tabs
STAND_IN = b"\x1f"  # takes the place of separators that are not a single character
WANTED_NUMBER = r"^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$"
DECIMAL_COMMA = r"^[-+]?[0-9]*,[0-9]+([eE][-+]?[0-9]+)?$"
MAYBE_THOUSANDS = r"^[-+]?[1-9][0-9]{0,2},[0-9]{3}$"  # 1,500 is 1.5 in one country and 1500 in another


def blocks(stream: Stream) -> Iterator[bytes]:
    """Yield the lines of a stream in blocks; every line ends with one newline, the last one too.

    A byte-order mark is dropped, UTF-16 becomes UTF-8, and CR or CRLF line ends become newlines.
    """
    rest = b""
    for chunk in _utf8(stream):
        if cut := chunk.rfind(b"\n") + 1:
            yield b"".join((rest, memoryview(chunk)[:cut]))
            rest = chunk[cut:]
        else:
            rest += chunk
            if len(rest) > LONGEST_LINE:
                raise BadData(f"expected lines of text, got {len(rest):,} bytes without a line end")
    if rest:
        yield rest + b"\n"


def _utf8(stream: Stream) -> Iterator[bytes]:
    start = stream.peek(3)
    wide = start[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    decode = codecs.getincrementaldecoder("utf-16")("replace").decode if wide else None
    if start == codecs.BOM_UTF8:
        stream.read(3)
    after_return = False  # the last chunk ended in CR: a newline that follows belongs to it
    while chunk := stream.read(BLOCK):
        if decode:
            chunk = decode(chunk).encode()
        if after_return and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        after_return = chunk.endswith(b"\r")
        if b"\r" in chunk:
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        yield chunk


class Fields(NamedTuple):
    """Columns of a block, and the lines that have another number of fields."""

    columns: list[Any]  # pyarrow binary arrays, one for each column asked for
    odd: list[tuple[int, bytes]]  # (line of the block from 0, content)
    lines: int

    def line_numbers(self) -> np.ndarray:
        """Return the line of the block, from 0, that each row stands in."""
        return np.delete(np.arange(self.lines), [line for line, _ in self.odd])


def split(block: bytes, separator: str, fields: int, wanted: Sequence[int], escaped: bool = False) -> Fields:
    """Split every line of a block into `fields` fields and return the columns `wanted`.

    A quoted field may hold separators but ends on its line. Blank lines come back as rows of empty fields.
    """
    if separator == BLANKS:
        block = _single_blanks(block)
    elif len(separator) > 1:
        block = block.replace(separator.encode(), STAND_IN)
    delimiter = STAND_IN if len(separator) > 1 else separator.encode()
    lines = int((np.frombuffer(block, np.uint8) == ord("\n")).sum())  # several times as fast as bytes.count
    columns, odd = _parsed(block, lines, delimiter, fields, wanted, escaped)
    if len(separator) > 1:
        odd = [(line, text.replace(STAND_IN, separator.encode())) for line, text in odd]
    return Fields(columns, odd, lines)


def _single_blanks(block: bytes) -> bytes:
    if b"\t" in block or b"  " in block:
        block = re.sub(rb"[ \t]+", b" ", block)
    if b"\n " in block or b" \n" in block or block.startswith(b" "):
        block = re.sub(rb" ?\n ?", b"\n", block).lstrip(b" ")
    return block


def _parsed(
    block: bytes, lines: int, delimiter: bytes, fields: int, wanted: Sequence[int], escaped: bool
) -> tuple[list[Any], list[tuple[int, bytes]]]:
    pa = arrow("rating files of text")
    odd: list[tuple[int, bytes]] = []

    def skip(row: Any) -> str:
        odd.append((row.number - 1, row.text.encode()))
        return "skip"

    names = [str(i) for i in range(fields)]
    handler = skip if _is_utf8(block) else None  # pyarrow hands it text, and fails on other bytes
    with contextlib.suppress(pa.ArrowInvalid):  # an odd line where there is no handler
        table = pa.csv.read_csv(
            pa.BufferReader(block),
            read_options=pa.csv.ReadOptions(use_threads=False, block_size=len(block) + 1, column_names=names),
            parse_options=pa.csv.ParseOptions(
                delimiter=delimiter.decode(),
                quote_char='"' if b'"' in block else False,
                escape_char="\\" if escaped else False,
                ignore_empty_lines=False,
                invalid_row_handler=handler,
            ),
            convert_options=pa.csv.ConvertOptions(
                include_columns=[names[i] for i in wanted],
                column_types=dict.fromkeys(names, pa.binary()),
                check_utf8=False,
                strings_can_be_null=False,
            ),
        )
        if table.num_rows + len(odd) == lines:
            return [_single(pa, column.chunks) for column in table.columns], odd
    # An open quote has taken in the lines after it, or a line is odd: look for it in ever smaller parts
    if lines == 1:
        return [_single(pa, []) for _ in wanted], [(0, block)]
    middle = block.find(b"\n", len(block) // 2) + 1
    if middle == len(block):
        middle = block.rfind(b"\n", 0, len(block) - 1) + 1
    before = block.count(b"\n", 0, middle)
    (upper, odd_above), (lower, odd_below) = (
        _parsed(part, count, delimiter, fields, wanted, escaped)
        for part, count in ((block[:middle], before), (block[middle:], lines - before))
    )
    joined = [_single(pa, pair) for pair in zip(upper, lower, strict=True)]
    return joined, odd_above + [(before + line, text) for line, text in odd_below]


def _is_utf8(block: bytes) -> bool:
    if block.isascii():
        return True
    try:
        block.decode()
    except UnicodeDecodeError:
        return False
    return True


def _single(pa: Any, chunks: Sequence[Any]) -> Any:
    if len(chunks) == 1:
        return chunks[0]
    return pa.concat_arrays(chunks) if chunks else pa.array([], pa.binary())


def numbers(column: Any) -> np.ndarray:
    """Return a column of text as float32, NaN where it is no decimal number or not finite."""
    pa = arrow("rating files of text")
    text = column.view(pa.string())
    try:
        values = pa.compute.cast(text, pa.float64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        text = pa.compute.ascii_trim_whitespace(text)
        is_number = pa.compute.match_substring_regex(text, WANTED_NUMBER)
        text = pa.compute.if_else(is_number, text, "nan")
        values = pa.compute.cast(text, pa.float64()).to_numpy(zero_copy_only=False)
    return finite(values)


class Commas(NamedTuple):
    """Numbers of a column that are written with a comma."""

    clear: bool  # some can only be decimals, as 3,5
    unclear: np.ndarray  # rows whose comma may also separate thousands, as 1,500


def decimal_commas(column: Any, values: np.ndarray) -> tuple[np.ndarray, Commas]:
    """Return the values of `numbers` with the decimals written with a comma filled in, and what these look like."""
    pa = arrow("rating files of text")
    rows = np.flatnonzero(np.isnan(values))
    text = pa.compute.ascii_trim_whitespace(column.take(pa.array(rows)).view(pa.string()))
    decimal = pa.compute.match_substring_regex(text, DECIMAL_COMMA)
    if not pa.compute.any(decimal).as_py():
        return values, Commas(False, rows[:0])
    written = pa.compute.if_else(decimal, pa.compute.replace_substring(text, ",", "."), "nan")
    values = values.copy()
    values[rows] = finite(pa.compute.cast(written, pa.float64()).to_numpy(zero_copy_only=False))
    unclear = pa.compute.match_substring_regex(text, MAYBE_THOUSANDS).to_numpy(zero_copy_only=False)
    return values, Commas(bool((decimal.to_numpy(zero_copy_only=False) & ~unclear).any()), rows[unclear])


def finite(values: np.ndarray) -> np.ndarray:
    """Return numbers as float32, NaN where they are not finite in it."""
    with np.errstate(over="ignore", invalid="ignore"):
        values = values.astype(np.float32)
    values[np.isinf(values)] = np.nan
    return values
