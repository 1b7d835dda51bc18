"""Sums over all programs of a launch, in an order that does not depend on which program ends last."""

import triton
import triton.language as tl
from triton.language import sum as tl_sum  # a global name of this module, so that interpret.py can replace it

BLOCK = tl.constexpr(1024)  # terms added at a time


@triton.jit
def is_last_program(ticket_ptr):
    """Return whether all other programs have called this before, so that what they stored until then can be read.

    Each program takes a ticket, an int32 that starts at 0.
    """
    programs = tl.num_programs(0) * tl.num_programs(1)
    return tl.atomic_add(ticket_ptr, 1, sem="acq_rel") == programs - 1


@triton.jit
def store_sum(sum_ptr, terms_ptr, length, factor, last):
    """Store the sum of (length,) float64 times a factor, added up in a fixed order, if `last`.

    Other programs add up nothing. A branch around the exchange between threads would cost registers.
    """
    offs = tl.arange(0, BLOCK)  # [BLOCK]
    total = tl.full([BLOCK], 0, tl.float64)
    length = tl.where(last, length, 0)
    for start in range(0, length, BLOCK):
        total += tl.load(terms_ptr + start + offs, mask=offs < length - start, other=0)
    tl.store(sum_ptr, (factor * tl_sum(total, 0)).to(sum_ptr.dtype.element_ty), mask=last)
