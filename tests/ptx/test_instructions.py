"""Each kind of instruction against the PTX manual's definition, written out in plain Python or taken from PyTorch."""

from __future__ import annotations

import math
import struct
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from . import Diverged, Endless, Unsupported, machine
from .snippets import elementwise, execute

SPECIAL = [0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, 1e-45, -1e-40, 3.4e38, 0.1, 65519.0, 65520.0, 1 / 3]


def words(*values: int) -> torch.Tensor:
    """Bits as int32."""
    return torch.tensor([v - (1 << 32) if v >= 1 << 31 else v for v in values], dtype=torch.int32)


def unsigned(values: torch.Tensor) -> list[int]:
    return [v & 0xFFFFFFFF for v in values.tolist()]


def floats(bits: list[int]) -> list[float]:
    return [struct.unpack("<f", struct.pack("<I", b))[0] for b in bits]


word = st.integers(0, 2**32 - 1)
triples = st.lists(st.tuples(word, word, word), min_size=1, max_size=32)


def signed(value: int, bits: int = 32) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


def bfe_s32(a: int, position: int, length: int) -> int:
    position, length = position & 255, length & 255
    sign = 0 if length == 0 else a >> min(position + length - 1, 31) & 1
    return sum((a >> (position + i) & 1 if i < length and position + i <= 31 else sign) << i for i in range(32))


def prmt(a: int, b: int, c: int) -> int:
    source, result = b << 32 | a, 0
    for i in range(4):
        nibble = c >> 4 * i & 15
        byte = source >> 8 * (nibble & 7) & 255
        result |= (255 * (byte >> 7) if nibble & 8 else byte) << 8 * i
    return result


def lop3(a: int, b: int, c: int) -> int:
    return sum((0xD8 >> ((a >> i & 1) << 2 | (b >> i & 1) << 1 | c >> i & 1) & 1) << i for i in range(32))


INTEGER = {
    "add.s32 %y0, %a0, %a1": lambda a, b, c: a + b,
    "sub.s32 %y0, %a0, %a1": lambda a, b, c: a - b,
    "mul.lo.s32 %y0, %a0, %a1": lambda a, b, c: a * b,
    "mul.hi.u32 %y0, %a0, %a1": lambda a, b, c: a * b >> 32,
    "mul.hi.s32 %y0, %a0, %a1": lambda a, b, c: signed(a) * signed(b) >> 32,
    "mad.lo.s32 %y0, %a0, %a1, %a2": lambda a, b, c: a * b + c,
    "div.u32 %y0, %a0, %a1": lambda a, b, c: a // b if b else -1,
    "div.s32 %y0, %a0, %a1": lambda a, b, c: int(Fraction(signed(a), signed(b))) if b else -1,
    "rem.s32 %y0, %a0, %a1": lambda a, b, c: math.fmod(signed(a), signed(b)) if b else a,
    "min.s32 %y0, %a0, %a1": lambda a, b, c: min(signed(a), signed(b)),
    "max.u32 %y0, %a0, %a1": lambda a, b, c: max(a, b),
    "shl.b32 %y0, %a0, %a1": lambda a, b, c: a << b if b < 32 else 0,
    "shr.u32 %y0, %a0, %a1": lambda a, b, c: a >> b if b < 32 else 0,
    "shr.s32 %y0, %a0, %a1": lambda a, b, c: signed(a) >> min(b, 31),
    "shf.l.wrap.b32 %y0, %a0, %a1, %a2": lambda a, b, c: (b << 32 | a) << c % 32 >> 32,
    "shf.r.clamp.b32 %y0, %a0, %a1, %a2": lambda a, b, c: (b << 32 | a) >> min(c, 32),
    "bfe.u32 %y0, %a0, %a1, %a2": lambda a, b, c: a >> (b & 255) & (1 << (c & 255)) - 1,
    "bfe.s32 %y0, %a0, %a1, %a2": bfe_s32,
    "prmt.b32 %y0, %a0, %a1, %a2": prmt,
    "lop3.b32 %y0, %a0, %a1, %a2, 0xd8": lop3,
    "not.b32 %y0, %a0": lambda a, b, c: ~a,
    "popc.b32 %y0, %a0": lambda a, b, c: bin(a).count("1"),
    "clz.b32 %y0, %a0": lambda a, b, c: 32 - a.bit_length(),
    "brev.b32 %y0, %a0": lambda a, b, c: int(f"{a:032b}"[::-1], 2),
}


@pytest.mark.parametrize("operation", INTEGER)
@settings(max_examples=10, deadline=None)
@given(values=triples, small=st.booleans())
def test_integer_instructions(operation, values, small):
    if small:  # shift amounts, field positions and lengths
        values = [(a, b % 40, c % 40) for a, b, c in values]
    inputs = [words(*column) for column in zip(*values, strict=True)]
    (result,) = elementwise(operation + ";", inputs, torch.int32)
    assert unsigned(result) == [int(INTEGER[operation](*row)) & 0xFFFFFFFF for row in values]


@settings(max_examples=20, deadline=None)
@given(values=triples)
def test_wide_products_and_64_bit_addresses(values):
    inputs = [words(*column) for column in zip(*values, strict=True)]
    code = "cvt.u64.u32 %d1, %a2; mad.wide.s32 %y0, %a0, %a1, %d1; mul.wide.u32 %y1, %a0, %a1;"
    signed_result, unsigned_result = elementwise(code, inputs, torch.int64, results=2)
    assert signed_result.tolist() == [signed(signed(a) * signed(b) + c & 2**64 - 1, 64) for a, b, c in values]
    assert unsigned_result.tolist() == [signed(a * b & 2**64 - 1, 64) for a, b, _ in values]


@settings(max_examples=30, deadline=None)
@given(values=st.lists(st.floats(width=32), min_size=1, max_size=32))
def test_float_conversions_round_as_pytorch_does(values):
    x = torch.tensor([*values, *SPECIAL], dtype=torch.float32)
    for name, dtype in (("f16", torch.float16), ("bf16", torch.bfloat16)):
        code = f"cvt.rn.{name}.f32 %h1, %a0; cvt.f32.{name} %y0, %h1; cvt.rn.{name}x2.f32 %y1, %a0, %y0;"
        back, packed = elementwise(code, [x], torch.float32, results=2)
        torch.testing.assert_close(back, x.to(dtype).float(), rtol=0, atol=0, equal_nan=True)
        halves = packed.view(dtype).float().reshape(-1, 2)  # the second operand lies in the lower half
        torch.testing.assert_close(halves, torch.stack([back, back], 1), rtol=0, atol=0, equal_nan=True)


def test_tf32_rounds_to_nearest_and_the_tensor_core_truncates():
    bits = [0x3F800FFF, 0x3F801000, 0x3F801001, 0xBF801000, 0x3F803000, 0x7F7FFFFF, 0x00001000]
    x = torch.tensor(floats(bits))
    (away,) = elementwise("cvt.rna.tf32.f32 %y0, %a0;", [x], torch.float32)
    expected = [0x3F800000, 0x3F802000, 0x3F802000, 0xBF802000, 0x3F804000, 0x7F800000, 0x00002000]
    assert unsigned(away.view(torch.int32)) == expected


def test_conversion_to_integers_saturates():
    x = torch.tensor([1.5, -1.5, 2.5, 3e9, -3e9, math.inf, -math.inf, math.nan, 0.49])
    nearest, truncated = elementwise("cvt.rni.s32.f32 %y0, %a0; cvt.rzi.u32.f32 %y1, %a0;", [x], torch.int32, results=2)
    assert nearest.tolist() == [2, -2, 2, 2**31 - 1, -(2**31), 2**31 - 1, -(2**31), 0, 0]
    assert unsigned(truncated) == [1, 0, 2, 3_000_000_000, 0, 2**32 - 1, 0, 0, 0]


def test_narrow_integers_extend_by_their_sign():
    x = words(0xFF80, 0x17F, 0x8000)
    code = "cvt.s32.s8 %y0, %a0; cvt.u32.u8 %y1, %a0; cvt.s32.s16 %y2, %a0;"
    results = elementwise(code, [x], torch.int32, results=3)
    assert [r.tolist() for r in results] == [[-128, 127, 0], [0x80, 0x7F, 0], [-128, 0x17F, -32768]]


def test_fma_rounds_once():
    a, b = torch.tensor([1 + 2.0**-23]), torch.tensor([1 - 2.0**-23])
    (result,) = elementwise("mov.b32 %r1, 0fBF800000; fma.rn.f32 %y0, %a0, %a1, %r1;", [a, b], torch.float32)
    assert result.item() == -(2.0**-46)


def test_packed_arithmetic_acts_on_both_halves():
    x, y = torch.randn(32, 2), torch.randn(32, 2)
    code = "fma.rn.f32x2 %y0, %a0, %a1, %a0;"
    (result,) = elementwise(code, [x.view(torch.float64)[:, 0], y.view(torch.float64)[:, 0]], torch.float64)
    expected = (x.double() * y + x).float()
    torch.testing.assert_close(result[:, None].view(torch.float32), expected, rtol=0, atol=0)


COMPARISONS = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b and not (math.isnan(a) or math.isnan(b)),
    "lt": lambda a, b: a < b,
    "geu": lambda a, b: not a < b,
    "neu": lambda a, b: a != b,
    "num": lambda a, b: not (math.isnan(a) or math.isnan(b)),
    "nan": lambda a, b: math.isnan(a) or math.isnan(b),
}


@pytest.mark.parametrize("name", COMPARISONS)
def test_float_comparisons_with_nan(name):
    pairs = [(a, b) for a in (0.0, -0.0, 1.0, math.inf, math.nan) for b in (0.0, 1.0, math.nan)]
    inputs = [torch.tensor(column) for column in zip(*pairs, strict=True)]
    code = f"setp.{name}.f32 %p1|%p2, %a0, %a1; selp.b32 %y0, 1, 0, %p1; selp.b32 %y1, 1, 0, %p2;"
    holds, fails = elementwise(code, inputs, torch.int32, results=2)
    assert holds.tolist() == [int(COMPARISONS[name](*pair)) for pair in pairs]
    assert fails.tolist() == [1 - value for value in holds.tolist()]


def test_packed_comparisons_give_a_predicate_for_each_half():
    x = torch.tensor([[1.0, math.nan], [math.nan, 2.0], [3.0, 3.0]], dtype=torch.float16)
    code = "setp.num.f16x2 %p1|%p2, %a0, %a0; selp.b32 %y0, 1, 0, %p1; selp.b32 %y1, 1, 0, %p2;"
    low, high = elementwise(code, [x.view(torch.float32)[:, 0]], torch.int32, results=2)
    assert torch.stack([low, high], 1).tolist() == [[1, 0], [0, 1], [1, 1]]


def test_comparison_combined_with_a_predicate():
    x = torch.arange(32, dtype=torch.int32)
    code = "setp.gt.s32 %p1, %a0, 9; setp.lt.and.s32 %p2, %a0, 20, %p1; @!%p2 mov.b32 %y0, 7; @%p2 mov.b32 %y0, 1;"
    (result,) = elementwise(code, [x], torch.int32)
    assert result.tolist() == [1 if 9 < i < 20 else 7 for i in range(32)]


def shuffled(mode: str, lane: int, b: int, c: int) -> int:
    segment, clamp = c >> 8 & 31, c & 31
    highest = lane & segment | clamp & ~segment & 31
    source = {"up": lane - b, "down": lane + b, "bfly": lane ^ b, "idx": lane & segment | b & ~segment}[mode]
    return source if (source >= highest if mode == "up" else source <= highest) else lane


@pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
@pytest.mark.parametrize(("b", "segments"), [(1, 0), (5, 0), (16, 0), (3, 0x1800), (9, 0x1000)])
def test_shuffles(mode, b, segments):
    c = segments | (0 if mode == "up" else 31)
    x = torch.randint(1000, (64,), dtype=torch.int32)
    (result,) = elementwise(f"shfl.sync.{mode}.b32 %y0, %a0, {b}, {c}, -1;", [x], torch.int32)
    assert result.tolist() == [int(x[i - i % 32 + shuffled(mode, i % 32, b, c)]) for i in range(64)]


def test_votes_and_warp_reductions():
    x = torch.randint(-9, 9, (64,), dtype=torch.int32)
    code = """redux.sync.max.s32 %y0, %a0, -1; setp.gt.s32 %p1, %a0, 0; vote.sync.ballot.b32 %y1, %p1, -1;
              vote.sync.any.pred %p2, %p1, -1; selp.b32 %y2, 1, 0, %p2;"""
    largest, ballot, some = elementwise(code, [x], torch.int32, results=3)
    for warp in (slice(0, 32), slice(32, 64)):
        assert set(largest[warp].tolist()) == {int(x[warp].max())}
        assert set(unsigned(ballot[warp])) == {sum(int(v > 0) << i for i, v in enumerate(x[warp].tolist()))}
        assert set(some[warp].tolist()) == {int((x[warp] > 0).any())}


def test_divergent_loops_and_early_exit():
    """Collatz steps: each thread leaves the loop after a different count, some at once."""
    x = torch.randint(1, 200, (64,), dtype=torch.int32)
    out = torch.full((64,), -1, dtype=torch.int32)
    body = """
    mad.wide.u32 %ptr0, %t, 4, %ptr0; mad.wide.u32 %ptr1, %t, 4, %ptr1;
    ld.global.b32 %r1, [%ptr0]; mov.b32 %r2, 0;
    setp.gt.s32 %p1, %r1, 150; @%p1 ret;
LOOP: setp.eq.s32 %p2, %r1, 1; @%p2 bra DONE;
    and.b32 %r3, %r1, 1; setp.eq.s32 %p3, %r3, 0; add.s32 %r2, %r2, 1;
    @%p3 bra EVEN;
    mad.lo.s32 %r1, %r1, 3, 1; bra.uni LOOP;
EVEN: shr.s32 %r1, %r1, 1; bra.uni LOOP;
DONE: st.global.b32 [%ptr1], %r2;"""
    execute(body, x, out)

    def steps(value: int) -> int:
        return 0 if value == 1 else 1 + steps(3 * value + 1 if value % 2 else value // 2)

    assert out.tolist() == [-1 if v > 150 else steps(v) for v in x.tolist()]


def test_a_loop_without_end_is_an_error(monkeypatch):
    monkeypatch.setattr(machine, "MAX_STEPS", 1000)
    with pytest.raises(Endless, match=r"bra.uni L"):
        execute("L: bra.uni L;")


def test_warp_wide_instructions_need_the_whole_warp():
    with pytest.raises(Diverged, match="warp 0"):
        execute("setp.eq.u32 %p1, %t, 3; @%p1 bra L; shfl.sync.bfly.b32 %r1, %t, 1, 31, -1; L: mov.b32 %r2, 0;")
    with pytest.raises(Diverged, match="different barriers"):
        execute("setp.eq.u32 %p1, %t, 3; @%p1 bra L; bar.sync 0; ret; L: bar.sync 0;")


@pytest.mark.parametrize(
    "line",
    [
        "tanh.approx.f32 %r1, %r2",
        "add.sat.f32 %r1, %r2, %r3",
        "wgmma.mma_async.sp.sync.aligned.m64n8k16.f32.tf32.tf32 {%r1, %r2, %r3, %r4}, %d1, %d2, %r5, 0, 1, 1, 1",
        "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%r1, %r2}, {%r1}, {%r1}, {%r1, %r2}",
        "bar.sync 1, 64",
        "cvt.rz.f32.f64 %r1, %d1",
        "ld.global.v2.b32 {%r1, %r2, %r3}, [%d1]",
    ],
)
def test_unknown_instructions_name_their_line(line):
    with pytest.raises(Unsupported) as error:
        execute(line + ";")
    assert f"PTX line {error.value.line}: {line}" in str(error.value)
    assert error.value.line > 10
