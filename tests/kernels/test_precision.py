"""The error of one product in each precision: within the bound derived in docs/kernel.md, and close to it.

What a matrix unit does to its operands is emulated here, since Triton's interpreter computes in full float32.
"""

import pytest
import torch

from kernels.gpu.config import ARITHMETIC
from kernels.gpu.plan import split_operand
from tests.ptx.steps import PRODUCT_ERROR

# Derived: what the roundings of one product add up to at worst; above it lies the bound that the tests use.
DERIVED = {"tf32": 2**-10 + 2**-11, "tf32x3": 2 * 2**-22 + 2**-22, "bf16x3": 2 * 2**-17 + 2**-16}


def in_hardware(values, precision):
    """Return an operand as the matrix unit reads it: tf32 truncates 13 bits, bfloat16 is exact."""
    if not precision.startswith("tf32"):
        return values.double()
    return (values.view(torch.int32) & (-1 << 13)).view(torch.float32).double()


def pieces(values, precision):
    """Return the parts of a factor or of a split error, as the unit reads them: one, or high and low."""
    packed = split_operand(values[:, None].clone(), ARITHMETIC[precision])
    parts = packed.unbind() if ARITHMETIC[precision].split else [packed]
    return [in_hardware(part[:, 0], precision) for part in parts]


def product(x, y, precision):
    """Return the exact sum of all products but that of the low parts. x: factors, y: errors."""
    factors = pieces(x, precision)
    errors = pieces(y, precision) if ARITHMETIC[precision].split else [in_hardware(y, precision)]
    return sum(a * b for i, a in enumerate(factors) for j, b in enumerate(errors) if i + j < 2)


def operands(count, seed):
    """Return operands with random mantissas, and with mantissas at the edges of rounding."""
    generator = torch.Generator().manual_seed(seed)
    bits = torch.randint(0, 1 << 23, (count,), generator=generator, dtype=torch.int32)
    edges = torch.tensor([0, 1, (1 << 12) - 1, 1 << 12, (1 << 13) - 1, (1 << 15) + 1, (1 << 16) - 1, (1 << 23) - 1])
    bits[: len(edges) ** 2] = edges.repeat(len(edges)).int()
    exponents = torch.randint(117, 137, (count,), generator=generator, dtype=torch.int32)
    return (exponents << 23 | bits).view(torch.float32)


@pytest.mark.parametrize("precision", DERIVED)
def test_the_error_of_a_product(precision):
    x, y = operands(1 << 20, 1), operands(1 << 20, 2).flip(0)
    exact = x.double() * y.double()
    worst = ((product(x, y, precision) - exact) / exact).abs().max().item()
    assert DERIVED[precision] / 4 < worst <= DERIVED[precision] <= PRODUCT_ERROR[precision]


@pytest.mark.parametrize("precision", ["tf32x3", "bf16x3"])
def test_the_halves_of_a_factor_are_the_factor(precision):
    x = operands(1 << 16, 3)
    high, low = split_operand(x[:, None].clone(), ARITHMETIC[precision]).double()[..., 0]
    lost = {"tf32x3": 0, "bf16x3": 2**-17}[precision]
    assert ((high + low - x.double()) / x).abs().max().item() <= lost


def test_factors_in_tf32_are_rounded_not_cut():
    x = operands(1 << 16, 4)
    (rounded,) = pieces(x, "tf32")
    errors = (rounded - x.double()) / x.double()
    assert errors.abs().max().item() <= 2**-11
    assert abs(errors.mean().item()) < 2**-15  # cut ones would lie 2**-11.4 too low
