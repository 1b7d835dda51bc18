"""The second kernel: slices of partial gradients summed in a fixed order."""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["slices"])
def sum_slices(partial_ptr, total_ptr, slices, length, BLOCK: tl.constexpr):
    """total (length,) = partial (slices, length) summed from the first slice to the last."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)  # [BLOCK]
    inside = at < length
    total = tl.load(partial_ptr + at, mask=inside)
    for _ in range(1, slices):
        partial_ptr += length
        total += tl.load(partial_ptr + at, mask=inside)
    tl.store(total_ptr + at, total, mask=inside)
