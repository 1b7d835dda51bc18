"""The model of tensor-core addition: vectors worked out by hand, and exact fractions on random ones."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from .convert import tf32_truncated
from .tensor_core import CANONICAL_NAN, TENSOR_CORES

BIG = 2.0**24  # the next float32 is BIG + 2
TINY = 2.0**-149  # the smallest float32
INF = float("inf")


def one_entry(target: str, products: list[tuple[float, float]], c: float, kind: str = "tf32") -> np.float32:
    """Return c + the products, padded with zeros to the depth of an instruction."""
    depth = 8 if kind == "tf32" else 16
    a, b = np.zeros((1, depth), np.float32), np.zeros((depth, 1), np.float32)
    a[0, : len(products)], b[: len(products), 0] = zip(*products, strict=True)
    return TENSOR_CORES[target](a, b, np.full((1, 1), c, np.float32), kind)[0, 0]


def ones(count: int, value: float = 1.0) -> list[tuple[float, float]]:
    return [(value, 1.0)] * count


@pytest.mark.parametrize(
    ("products", "c", "ampere", "hopper"),
    [
        # Terms are cut below 2**24 * 2**-24 = 1 on Ampere, below 1/2 on Hopper; results below 2.
        (ones(4), BIG, BIG + 4, BIG + 4),
        (ones(3), BIG, BIG + 2, BIG + 2),  # BIG + 3 is truncated; rounding to nearest even would give BIG + 4
        (ones(3, -1.0), -BIG, -BIG - 2, -BIG - 2),  # toward zero
        (ones(8, 0.75), BIG, BIG, BIG + 4),  # each is 0 on Ampere and 1/2 on Hopper; exactly BIG + 6
        (ones(8, 0.25), BIG, BIG, BIG),
        ([*ones(3), (0, 0), *ones(1)], BIG, BIG + 2, BIG + 4),  # 3 and then 1 in two steps on Ampere
        ([(4096.0, 4096.0), *ones(3, 0.75)], -BIG, 0.0, 1.5),  # a cancellation shows what the terms lost
        ([(4096.0, 4096.0), *ones(3, 0.75)], 0.0, BIG, BIG),
        ([(4096.0, -4096.0), (0, 0), (0, 0), (0, 0), (0.75, 1)], BIG, 0.75, 0.5),  # Ampere cancels a step earlier
        ([(1.5, 1.5)], 0.25, 2.5, 2.5),
        ([(1 + 2.0**-10, 1 + 2.0**-10)], 0.0, 1 + 2.0**-9 + 2.0**-20, 1 + 2.0**-9 + 2.0**-20),  # all 21 bits
        ([(2.0**-75, 2.0**-75)], 0.0, 0.0, 0.0),  # half the smallest float32
        ([(2.0**-75, 2.0**-75)] * 2, 0.0, TINY, TINY),
        ([(2.0**-75, -(2.0**-75))] * 3, 0.0, -TINY, -TINY),
        ([(0.0, 0.0)], 3 * TINY, 3 * TINY, 3 * TINY),  # subnormals are kept
        ([(2.0**-136, 1.0)], TINY, 2.0**-136 + TINY, 2.0**-136 + TINY),
        ([(INF, 1.0)], 1.0, INF, INF),
        ([(INF, -1.0)], 1.0, -INF, -INF),
        ([(2.0**127, 2.0)], 0.0, INF, INF),  # too large
        ([(2.0**127, 2.0), (2.0**127, -1.0)], 0.0, 2.0**127, 2.0**127),  # only the sum must fit
    ],
)
def test_vectors_worked_out_by_hand(products, c, ampere, hopper):
    for target, expected in (("sm_80", ampere), ("sm_86", ampere), ("sm_89", ampere), ("sm_90", hopper)):
        assert one_entry(target, products, c) == np.float32(expected), target


def test_steps_of_16_bit_types_are_twice_as_long():
    seven = [*ones(7), (0, 0), *ones(1)]
    assert one_entry("sm_80", seven, BIG, "bf16") == BIG + 6  # 7 and then 1
    assert one_entry("sm_90", seven, BIG, "bf16") == BIG + 8
    assert one_entry("sm_80", [*ones(7), *ones(1)], BIG, "f16") == BIG + 8


@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
@pytest.mark.parametrize(
    ("products", "c"),
    [([(INF, 0.0)], 0.0), ([(INF, 1.0)], -INF), ([(INF, 1.0), (INF, -1.0)], 0.0), ([(float("nan"), 0.0)], 0.0)],
)
def test_nan_has_one_pattern(target, products, c):
    assert one_entry(target, products, c).view(np.uint32) == CANONICAL_NAN.view(np.uint32)


def test_entries_do_not_affect_each_other():
    a, b = np.ones((2, 8), np.float32), np.ones((8, 2), np.float32)
    a[0, 0] = INF
    assert np.array_equal(TENSOR_CORES["sm_80"](a, b, np.ones((2, 2), np.float32), "tf32"), [[INF, INF], [9, 9]])


def test_float64_is_left_to_numpy():
    a, b, c = (np.random.default_rng(0).standard_normal((4, 4)) for _ in range(3))
    assert np.array_equal(TENSOR_CORES["sm_90"](a, b, c, "f64"), a @ b + c)


def _exactly(a: np.ndarray, b: np.ndarray, c: np.float32, fraction_bits: int) -> Fraction:
    """One step in exact fractions, for normal float32 results: the definition, term by term."""

    def exponent(value: float) -> int:
        return int(np.frexp(np.float64(value))[1]) - 1 if value else -126

    def cut(value: Fraction, unit: Fraction) -> Fraction:
        return int(value / unit) * unit  # `int` truncates toward zero

    terms = [(Fraction(float(x)) * Fraction(float(y)), exponent(x) + exponent(y)) for x, y in zip(a, b, strict=True)]
    terms.append((Fraction(float(c)), exponent(c)))
    largest = max(place for _, place in terms)
    total = sum(cut(term, Fraction(2) ** (largest - fraction_bits)) for term, _ in terms)
    return cut(total, Fraction(2) ** (exponent(float(total)) - 23))


@pytest.mark.parametrize(("target", "fraction_bits", "step"), [("sm_80", 24, 4), ("sm_90", 25, 8), ("sm_120", 25, 8)])
def test_random_vectors_against_exact_fractions(target, fraction_bits, step):
    generator = np.random.default_rng(0)
    for spread in (0, 2, 8, 20):

        def draw(*shape, spread=spread):
            scale = 2.0 ** generator.integers(-spread, spread + 1, shape)
            return (generator.standard_normal(shape) * scale).astype(np.float32)

        a, b, c = tf32_truncated(draw(6, 8)), tf32_truncated(draw(8, 6)), draw(6, 6)
        c[0] = -(a @ b)[0]  # cancels
        got = TENSOR_CORES[target](a, b, c, "tf32")
        for i, j in np.ndindex(6, 6):
            expected = Fraction(float(c[i, j]))
            for start in range(0, 8, step):
                part = slice(start, start + step)
                expected = _exactly(a[i, part], b[part, j], np.float32(float(expected)), fraction_bits)
            assert got[i, j] == float(expected)
