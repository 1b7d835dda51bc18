#!/usr/bin/env bash
# Triton 3.9.0 for gfx1100 (RDNA 3): an atomic addition of float32 is one instruction into a tensor below 2 GB, and a
# loop of compare-and-swap into a larger one. Triton 3.6.0 always emits the loop.
#
# Expected: the same instruction for every size, but for the address, as on gfx942 and gfx1201: AMD's RDNA 3
#           instruction set lists GLOBAL_ATOMIC_ADD_F32 beside BUFFER_ATOMIC_ADD_F32, and the documentation of
#           tl.atomic_add knows no limit of size.
# Seen:     Triton marks arguments of tensors below 2 GB (tt.pointer_range = 32, triton/backends/amd/compiler.py).
#           Those it addresses by buffer instructions, and emits buffer_atomic_add_f32; through other pointers LLVM
#           makes a loop with global_atomic_cmpswap_b32, since it may not assume what kind of memory they point to. So
#           a kernel changes its algorithm when its output passes 2 GB, or when Triton is the 3.6.0 that PyTorch 2.11
#           requires. On gfx90a (MI200) both versions emit the loop for every size. Compiled without a GPU; nothing
#           was timed. On Python 3.11, 2026-11-29.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv env
cat > add.py <<'PY'
import re

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


@triton.jit
def add(to_ptr, from_ptr, count, BLOCK: tl.constexpr):
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    terms = tl.load(from_ptr + place, mask=place < count)
    tl.atomic_add(to_ptr + place % 16, terms, mask=place < count, sem="relaxed")


arguments = {"to_ptr": "*fp32", "from_ptr": "*fp32", "count": "i32"}
for target in ("gfx90a", "gfx942", "gfx1100", "gfx1201"):
    for size, marks in (("below 2 GB", [["tt.pointer_range", 32]]), ("of any size", [])):
        attributes = {(place,): [["tt.divisibility", 16], *marks] for place in (0, 1)}
        source = ASTSource(add, arguments, {"BLOCK": 256}, attrs=attributes)
        code = triton.compile(source, GPUTarget("hip", target, 64 if target.startswith("gfx9") else 32))
        found = sorted(set(re.findall(r"\b(?:global|buffer|flat)_atomic_\w+", code.asm["amdgcn"])))
        kind = "a loop" if any("cmpswap" in name for name in found) else "an instruction"
        print(f"{target}, a tensor {size}: {kind} ({', '.join(found)})")
PY
for package in triton==3.6.0 triton==3.9.0; do
    version=${package#*==}
    env/bin/pip install -q --no-deps "$package"
    echo "Triton $version; expected: an instruction"
    TRITON_CACHE_DIR=$PWD/cache-$version env/bin/python add.py 2> log | tee "seen-$version" || { cat log; exit 1; }
done
for version in 3.6.0 3.9.0; do
    grep -q "gfx942, a tensor of any size: an instruction" "seen-$version" || { echo "could not be observed"; exit 1; }
done
grep -q "gfx1100, a tensor below 2 GB: an instruction" seen-3.9.0 &&
    grep -q "gfx1100, a tensor of any size: a loop" seen-3.9.0 &&
    grep -q "gfx1100, a tensor below 2 GB: a loop" seen-3.6.0 || { echo "the finding no longer holds"; exit 1; }
