#!/usr/bin/env bash
# Triton 3.6.0 for sm_100: tcgen05.commit gets the offset of its mbarrier in shared memory where a generic address belongs.
#
# Expected: by the PTX ISA, a tcgen05.commit without `.shared::cluster` takes a generic address: an offset in shared
#           memory becomes one by `cvta.shared.u64`. Or the instruction has `.shared::cluster` and takes the offset.
# Seen:     an ordinary tl.dot compiles to `cvt.u64.u32` of the offset, and tcgen05.commit on that, without the qualifier.
#           Outside the shared window the ISA leaves the behaviour undefined. Triton 3.9.0 writes `.shared::cluster` and
#           passes the offset. Whether a device minds was not seen. Nothing runs on a GPU here. On Python 3.11, 2026-11-29.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv env
cat > product.py <<'PY'
import re

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


@triton.jit
def product(a_ptr, b_ptr, out_ptr, SIZE: tl.constexpr):
    places = tl.arange(0, SIZE)[:, None] * SIZE + tl.arange(0, SIZE)[None, :]
    tl.store(out_ptr + places, tl.dot(tl.load(a_ptr + places), tl.load(b_ptr + places)))


arguments = {"a_ptr": "*fp16", "b_ptr": "*fp16", "out_ptr": "*fp32"}
aligned = {(place,): [["tt.divisibility", 16]] for place in range(3)}
source = ASTSource(product, arguments, {"SIZE": 128}, attrs=aligned)
ptx = triton.compile(source, GPUTarget("cuda", 100, 32), options={"num_warps": 4}).asm["ptx"]
commit = re.search(r"tcgen05\.commit\S* \[\s*(%\w+)\s*\]", ptx)
defined = re.findall(rf"(\S+)\s+{commit[1]}, ", ptx[: commit.start()])[-1]
print("an offset" if ".shared::cluster" in commit[0] else "a generic address", "made by", defined)
PY
for package in triton==3.6.0 triton==3.9.0; do
    version=${package#triton==}
    env/bin/pip install -q --no-deps "$package"
    TRITON_CACHE_DIR=$PWD/cache-$version env/bin/python product.py > "seen-$version" 2> log || { cat log; exit 1; }
    echo "Triton $version: expected 'an offset' or 'a generic address made by cvta.shared.u64', seen '$(cat "seen-$version")'"
done
grep -q "^an offset" seen-3.9.0 || { echo "could not be observed"; exit 1; }
grep -qx "a generic address made by cvt.u64.u32" seen-3.6.0 || { echo "the finding no longer holds"; exit 1; }
