"""Products of tiles and sums of squares, in the order in which matrix and vector units round them."""

import triton
import triton.language as tl


@triton.jit
def halves(x, dtype: tl.constexpr, SPLIT: tl.constexpr):
    """Return x = high + low: x rounded to its upper mantissa bits, and the rest. Unless SPLIT, x twice."""
    if SPLIT:
        bits = x.to(tl.int32, bitcast=True) + (1 << (SPLIT - 1))
        high = (bits & (-1 << SPLIT)).to(tl.float32, bitcast=True)
        low = (x - high).to(dtype)
        high = high.to(dtype)
    else:
        high = x
        low = x
    return high, low


@triton.jit
def add_squares(total, x, ADJACENT: tl.constexpr):
    """Return total + x², summed over 1, 2 or 4 columns of x for each of total, by one FMA for each x.

    If ADJACENT these columns are neighbours, otherwise a multiple of total's width apart. Threads that held different
    ones would exchange them.
    """
    if x.shape[1] == total.shape[1]:
        total += x * x
    else:
        left, right = column_halves(x, ADJACENT)
        if left.shape[1] == total.shape[1]:
            total = total + left * left + right * right
        else:
            tl.static_assert(left.shape[1] == 2 * total.shape[1])
            x0, x1 = column_halves(left, ADJACENT)
            x2, x3 = column_halves(right, ADJACENT)
            total = total + x0 * x0 + x1 * x1 + x2 * x2 + x3 * x3
    return total


@triton.jit
def column_halves(x, ALTERNATE: tl.constexpr):
    """Return the left and the right half of the columns of x, or, if ALTERNATE, its even and its odd columns."""
    if ALTERNATE:
        x = x.reshape(x.shape[0], x.shape[1] // 2, 2)
    else:
        x = x.reshape(x.shape[0], 2, x.shape[1] // 2).permute(0, 2, 1)
    return x.split()


@triton.jit
def add_prediction(E, A, A_low, B, B_low, SPLIT: tl.constexpr, PRECISION: tl.constexpr):
    """Return E + A B'. In tf32x3 truncation would show even in a sum that starts from the biases."""
    if SPLIT and PRECISION == "tf32":
        E = add_product(E, A, A_low, tl.trans(B), tl.trans(B_low), SPLIT, PRECISION)
    else:
        E = product(A, A_low, tl.trans(B), tl.trans(B_low), E, SPLIT, PRECISION)
    return E


@triton.jit
def add_gradient(dA, E, E_low, B, B_low, SPLIT: tl.constexpr, PRECISION: tl.constexpr):
    """Return dA + E B. Matrix units truncate sums, always toward zero: over a walk that would add up."""
    if PRECISION == "tf32" and not SPLIT:  # halves would spill
        E, B = fragment_order(E), tl.trans(fragment_order(tl.trans(B)))
    if SPLIT or PRECISION != "ieee":
        dA = add_product(dA, E, E_low, B, B_low, SPLIT, PRECISION)
    else:
        dA = product(E, E_low, B, B_low, dA, SPLIT, PRECISION)
    return dA


@triton.jit
def fragment_order(x):
    """Return the columns of x in another order, in which a product's result is a tf32 operand as it stands.

    Of every 8 columns, thread t of 4 holds 2t and 2t + 1 in a result, but t and t + 4 in an operand.
    """
    rows: tl.constexpr = x.shape[0]
    columns: tl.constexpr = x.shape[1]
    return x.reshape(rows, columns // 8, 4, 2).permute(0, 1, 3, 2).reshape(rows, columns)


@triton.jit
def add_product(total, x, x_low, y, y_low, SPLIT: tl.constexpr, PRECISION: tl.constexpr):
    """Return total + x y, where a matrix unit sums only x y and the vector units add it, rounding to nearest."""
    return total + product(x, x_low, y, y_low, tl.full(total.shape, 0, total.dtype), SPLIT, PRECISION)


@triton.jit
def product(x, x_low, y, y_low, total, SPLIT: tl.constexpr, PRECISION: tl.constexpr):
    """Return total + x y; of halves, all products but that of the two low ones, the small ones first.

    With `max_num_imprecise_acc`, which no unit that takes these types reads, the compiler leaves the order alone: it
    would turn a product from zero and an addition into a product that starts from the other addend.
    """
    if SPLIT:
        total = tl.dot(x_low, y, total, input_precision=PRECISION, out_dtype=total.dtype)
        total = tl.dot(x, y_low, total, input_precision=PRECISION, out_dtype=total.dtype)
    FIXED: tl.constexpr = None if PRECISION == "ieee" else x.shape[1]
    return tl.dot(x, y, total, input_precision=PRECISION, max_num_imprecise_acc=FIXED, out_dtype=total.dtype)
