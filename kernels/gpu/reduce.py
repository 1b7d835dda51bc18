"""The second kernel: sums slices of partial gradients in a fixed order."""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["slices"])
def sum_slices(partial_ptr, total_ptr, slices, length, BLOCK: tl.constexpr):
    """Sum partial (slices, length) into total (length,), from the first slice to the last."""
    offs = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)  # [BLOCK]
    mask = offs < length
    total = tl.load(partial_ptr + offs, mask=mask)
    for _ in range(1, slices):
        partial_ptr += length
        total += tl.load(partial_ptr + offs, mask=mask)
    tl.store(total_ptr + offs, total, mask=mask)
