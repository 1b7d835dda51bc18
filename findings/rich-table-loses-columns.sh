#!/usr/bin/env bash
# rich 15.0.0: a table that is too wide for the console loses whole columns without a trace, despite `min_width`.
#
# Expected: every column is printed with at least its `min_width`, or cut with an ellipsis, because rich/table.py
#           documents it as "Minimum width of column", and `overflow` defaults to "ellipsis".
# Seen:     on a console of 30 columns, four columns of `min_width=8`, three of them `no_wrap`, print as three; heading
#           and cells of the fourth are gone, and nothing marks the gap. With rich 15.0.0 on Python 3.11, 2026-11-28.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv env
env/bin/pip install -q rich==15.0.0

cat > table.py <<'PYTHON'
from rich.console import Console
from rich.table import Table

table = Table(box=None, pad_edge=False)
table.add_column("name", min_width=8, overflow="fold")
for heading in ("one", "two", "three"):
    table.add_column(heading, min_width=8, no_wrap=True)
table.add_row("alpha", "1111", "2222", "3333")
Console(width=30).print(table)
PYTHON

printed=$(env/bin/python table.py)
echo "expected: columns name, one, two and three, or an ellipsis where one does not fit; seen:"
echo "$printed"
if grep -q "two" <<< "$printed" && ! grep -Eq "th|33|…" <<< "$printed"; then
    echo "the column 'three' is gone"
else
    echo "the finding no longer holds"
    exit 1
fi
