#!/usr/bin/env bash
# Triton 3.6.0 and 3.7.0 for sm_90: a product in a pipelined loop reads shared memory before its copies are ordered.
#
# Expected: the PTX memory model has wgmma read shared memory through the async proxy, and cp.async write it through the
#           generic one, so that `fence.proxy.async` stands between the wait for the copies and wgmma. Triton puts it
#           there without pipelining (num_stages=1), and so does Triton 3.7.1 with it.
# Seen:     with num_stages=2, `cp.async.wait_group`, `bar.sync`, `wgmma.fence`, `wgmma.mma_async`, and no fence, in an
#           ordinary loop over tl.dot. PyTorch 2.11 requires Triton 3.6.0. An executor of PTX that
#           tracks proxies reports a race; whether a device ever shows it was not seen. Nothing runs on a GPU here.
#           On Python 3.11, 2026-11-29.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv env
cat > product.py <<'PY'
import re
import sys

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


@triton.jit
def product(a_ptr, b_ptr, out_ptr, K, SIZE: tl.constexpr):
    row, column = tl.arange(0, SIZE)[:, None], tl.arange(0, SIZE)[None, :]
    total = tl.zeros((SIZE, SIZE), tl.float32)
    for start in range(0, K, SIZE):
        k = start + tl.arange(0, SIZE)
        a = tl.load(a_ptr + row * K + k[None, :])
        b = tl.load(b_ptr + k[:, None] * SIZE + column)
        total = tl.dot(a, b, total)
    tl.store(out_ptr + row * SIZE + column, total)


arguments = {"a_ptr": "*fp16", "b_ptr": "*fp16", "out_ptr": "*fp32", "K": "i32"}
aligned = {(place,): [["tt.divisibility", 16]] for place in range(4)}
source = ASTSource(product, arguments, {"SIZE": 64}, attrs=aligned)
options = {"num_stages": int(sys.argv[1]), "num_warps": 4}
ptx = triton.compile(source, GPUTarget("cuda", 90, 32), options=options).asm["ptx"]
before = ptx[: ptx.index("wgmma.mma_async")]
copies = before.rfind("cp.async.wait_group")
assert (copies >= 0) == (options["num_stages"] > 1)  # copies are in flight where the loop is pipelined
print("ordered" if re.search(r"fence\.proxy\.async", before[max(copies, 0) :]) else "not ordered")
PY
seen() {  # VERSION STAGES
    TRITON_CACHE_DIR=$PWD/cache-$1 env/bin/python product.py "$2" 2> log || { cat log; exit 1; }
}
for version in 3.6.0 3.7.0 3.7.1; do
    env/bin/pip install -q --no-deps "triton==$version"
    for stages in 1 2; do
        result=$(seen "$version" "$stages")
        echo "Triton $version, num_stages=$stages: expected 'ordered', seen '$result'"
        echo "$result" > "seen-$version-$stages"
    done
done
grep -qx ordered seen-3.6.0-1 && grep -qx ordered seen-3.7.1-2 || { echo "could not be observed"; exit 1; }
grep -qx "not ordered" seen-3.6.0-2 && grep -qx "not ordered" seen-3.7.0-2 || { echo "the finding no longer holds"; exit 1; }
