#!/usr/bin/env bash
# pyarrow 26.0.1: with newlines_in_values=False, read_csv puts several lines into one value, and how many rows a file has
# depends on block_size.
#
# Expected: a quote that is not closed on its line is an error, or ends with the line, because newlines_in_values (default
#           False) is documented in pyarrow.csv.ParseOptions as "Whether newline characters are allowed in CSV values." At
#           least the same rows for any block_size, which is documented as "How much bytes to process at a time from the
#           input stream", as long as no row exceeds a block.
# Seen:     the value takes in all lines up to the next quote, three rows out of five lines, without an error; with another
#           block_size the same file has other rows or cannot be read. With pyarrow 26.0.1 on Python 3.11, 2026-11-28.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv env
env/bin/pip install -q pyarrow==26.0.1

cat > quote.py <<'PY'
import pyarrow as pa
from pyarrow import csv

CONTENT = b'u1,i1,1\n"u2,i2,2\nu3,i3,3\nu4",i4,4\nu5,i5,5\n'


def read(block_size):
    try:
        table = csv.read_csv(
            pa.BufferReader(CONTENT),
            read_options=csv.ReadOptions(column_names=["user", "item", "rating"], use_threads=False, block_size=block_size),
            parse_options=csv.ParseOptions(newlines_in_values=False),
        )
        return table.column("user").to_pylist()
    except pa.ArrowInvalid as error:
        return f"ArrowInvalid: {str(error)[:60]}"


for block_size in (1 << 20, 24, 18):
    print(f"block_size {block_size}:", read(block_size))
PY
env/bin/python quote.py | tee seen
echo "expected: no value with a line end in it, and the same for every block_size"
grep -q "^block_size 1048576: \['u1', 'u2,i2,2.nu3,i3,3.nu4', 'u5'\]" seen || { echo "the finding no longer holds"; exit 1; }
[ "$(sed 's/^[^:]*: //' seen | sort -u | wc -l)" -gt 1 ] || { echo "the finding no longer holds"; exit 1; }
