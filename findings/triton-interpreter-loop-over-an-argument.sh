#!/usr/bin/env bash
# Triton 3.6.0 with NumPy 2.4: the interpreter cannot run a loop over an integer argument.
#
# Expected: `for i in range(n)`, with an int argument n, runs under TRITON_INTERPRET=1 as it does compiled; Triton asks
#           for no particular NumPy, and with NumPy 2.3 it works.
# Seen:     TypeError: "only 0-dimensional arrays can be converted to Python scalars". The interpreter keeps
#           scalars as arrays of one element, whose __index__ is `int(self.handle.data)` (triton/runtime/interpreter.py);
#           NumPy 2.4 ended the deprecated conversion of such arrays. Triton 3.9.0 takes the element first.
#           With torch 2.13.0 on Python 3.11, 2026-11-28.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv env
env/bin/pip install -q torch==2.13.0
env/bin/pip install -q --no-deps triton==3.6.0

cat > loop.py <<'PY'
import torch
import triton
import triton.language as tl


@triton.jit
def count(out_ptr, n):
    total = 0
    for i in range(n):
        total += i
    tl.store(out_ptr, total)


out = torch.full((), -1, dtype=torch.int64)
try:
    count[(1,)](out, 4)
    print("sum of 0..3:", out.item())
except Exception as error:
    print("error:", error)
PY
for version in 2.3.5 2.4.0; do
    env/bin/pip install -q "numpy==$version"
    TRITON_INTERPRET=1 env/bin/python loop.py > "seen-$version" 2> log
    echo "NumPy $version: expected 'sum of 0..3: 6', seen '$(tail -1 "seen-$version")'"
done
grep -qx 'sum of 0..3: 6' seen-2.3.5 || { echo "could not be observed: it fails with NumPy 2.3.5, too"; exit 1; }
grep -q '^error: ' seen-2.4.0 || { echo "the finding no longer holds"; exit 1; }
