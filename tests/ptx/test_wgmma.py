"""wgmma against products of matrices laid out by CUTLASS's canonical layouts, and each of its rules broken."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from . import Diverged, InFlight, OutOfBounds, PTXError, Unfenced, Unsupported, run
from .memory import SHARED_BASE
from .snippets import kernel

DTYPES = {"tf32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
SWIZZLES = {0: 0, 32: 3, 64: 2, 128: 1}  # bytes of a row of the atom -> field of the descriptor
B_AT = 1 << 15  # byte of shared memory where B begins; A begins at 0
SHARED = 1 << 16


def canonical(row: int, k: int, size: int, swizzle: int, leading: int, stride: int, transposed: bool) -> int:
    """Return the byte of an element, by the layouts in CUTLASS's mma_traits_sm90_gmma.hpp, in pieces of 16 bytes."""
    count, width = 16 // size, max(1, swizzle // 16)  # elements of a piece, pieces of a row of the atom
    if transposed:
        piece, element = divmod(row, count)
        if swizzle:  # ((width, n), (8, k)) : ((1, leading), (width, stride))
            place = piece % width * 16 + piece // width * leading + k % 8 * width * 16 + k // 8 * stride
        else:  # ((1, n), (8, k)) : ((_, stride), (1, leading))
            place = piece * stride + k % 8 * 16 + k // 8 * leading
    else:  # ((8, m), (count, 2)) : ((width count, stride), (1, count or leading))
        piece, element = divmod(k, count)
        place = row % 8 * width * 16 + row // 8 * stride + piece * (16 if swizzle else leading)
    byte = place + element * size
    for bit in range({0: 0, 32: 1, 64: 2, 128: 3}[swizzle]):  # Swizzle<bits, 4, 3>
        byte ^= (byte >> 7 + bit & 1) << 4 + bit
    return byte


def strides(swizzle: int, transposed: bool) -> tuple[int, int]:
    """Return leading and stride offsets that keep the parts of an operand apart; 7 * 16 where none is used."""
    if swizzle:
        return (16 * swizzle, 8 * swizzle) if transposed else (7 * 16, 8 * swizzle)
    return 128, 384


def descriptor(start: int, swizzle: int, transposed: bool) -> int:
    leading, stride = strides(swizzle, transposed)
    return (SHARED_BASE + start) >> 4 | leading >> 4 << 16 | stride >> 4 << 32 | SWIZZLES[swizzle] << 62


def place(image: np.ndarray, start: int, matrix: torch.Tensor, swizzle: int, transposed: bool) -> None:
    """Write a matrix [rows, depth] into an image of shared memory; `start` may lie within an atom."""
    size, elements = matrix.element_size(), matrix.contiguous().view(torch.uint8).numpy()
    atom = start // 1024 * 1024  # the pattern of swizzles repeats with the address
    for row, k in itertools.product(range(matrix.shape[0]), range(matrix.shape[1])):
        offset = start - atom
        byte = canonical(row, k + offset // size, size, swizzle, *strides(swizzle, transposed), transposed)
        image[atom + byte :][:size] = elements[row, k * size :][:size]


def registers(prefix: str, count: int) -> str:
    return "{" + ", ".join(f"%{prefix}{i}" for i in range(count)) + "}"


COPY = """mov.b32 %r1, memory; mad.wide.u32 %d1, %t, 16, %ptr0; mad.lo.s32 %r2, %t, 16, %r1; mov.b32 %r3, 0;
COPY: ld.global.v4.b32 {%r4, %r5, %r6, %r7}, [%d1]; st.shared.v4.b32 [%r2], {%r4, %r5, %r6, %r7};
add.s64 %d1, %d1, 2048; add.s32 %r2, %r2, 2048; add.s32 %r3, %r3, 2048; setp.lt.s32 %p1, %r3, 65536; @%p1 bra COPY;"""


class Product:
    """D = A B + C by one warpgroup, as lines of PTX that a test may replace: the copy, fences, product and wait."""

    def __init__(self, kind: str, columns: int, swizzle: int = 128, in_registers=True, transposes=(0, 0), start=0):
        torch.manual_seed(columns + swizzle)
        dtype, self.depth = DTYPES[kind], 8 if kind == "tf32" else 16
        self.count = columns // 2
        self.A, self.B, self.C = (
            torch.randint(-8, 9, (64, self.depth)) / 4,
            torch.randint(-8, 9, (self.depth, columns)) / 4,
            torch.randint(-99, 99, (64, columns)).float(),
        )
        image = np.full(SHARED, 0xFF, np.uint8)
        place(image, B_AT + start, self.B.T.to(dtype), swizzle, bool(transposes[1]))
        if in_registers:
            rows, depths = zip(*self.a_places(), strict=True)
            warps = (self.A.to(dtype)[16 * warp :][list(rows), list(depths)] for warp in range(4))
            self.a = torch.cat([warp.reshape(32, -1) for warp in warps])
        else:
            place(image, start, self.A.to(dtype), swizzle, bool(transposes[0]))
            self.a = torch.zeros(128, 4)
        self.image, self.d = torch.from_numpy(image), torch.full((128, self.count), float("nan"))
        self.c = self.scatter(self.C)
        b = descriptor(B_AT + start, swizzle, bool(transposes[1]))
        a = registers("a", 4) if in_registers else "%da"
        immediates = "" if kind == "tf32" else ", ".join(["", *map(str, transposes[in_registers:])])
        shape = f"m64n{columns}k{self.depth}.f32.{kind}.{kind}"
        product = "wgmma.mma_async.sync.aligned.{} {}, {}, %db, {}, {}, {}{};"
        self.product = lambda scale="1", sign_a=1, sign_b=1: product.format(
            shape, registers("c", self.count), a, scale, sign_a, sign_b, immediates
        )
        self.lines = {
            "copy": COPY,
            "visible": "fence.proxy.async.shared::cta; bar.sync 0;",
            "load": "".join(f"ld.global.b32 %c{i}, [%dc+{4 * i}];" for i in range(self.count))
            + "".join(f"ld.global.b32 %a{i}, [%dn+{4 * i}];" for i in range(4)),
            "descriptors": f"mov.b64 %da, {descriptor(start, swizzle, bool(transposes[0]))}; mov.b64 %db, {b};",
            "fence": "wgmma.fence.sync.aligned;",
            "product": self.product(),
            "commit": "wgmma.commit_group.sync.aligned;",
            "wait": "wgmma.wait_group.sync.aligned 0;",
            "store": "".join(f"st.global.b32 [%dd+{4 * i}], %c{i};" for i in range(self.count)),
        }

    def a_places(self) -> Iterator[tuple[int, int]]:
        """Yield row and column of the elements of A in a warp's registers, lane after lane."""
        width = 1 if self.depth == 8 else 2
        for g, t, register, half in itertools.product(range(8), range(4), range(4), range(width)):
            yield g + 8 * (register & 1), width * t + half + 4 * width * (register >> 1)

    def scatter(self, matrix: torch.Tensor) -> torch.Tensor:
        """Return the accumulators of each thread, by the manual's formula."""
        values = torch.empty(128, self.count)
        for thread, i in itertools.product(range(128), range(self.count)):
            w, g, t = thread // 32, thread % 32 // 4, thread % 4
            values[thread, i] = matrix[16 * w + g + 8 * (i >> 1 & 1), 8 * (i >> 2) + 2 * t + (i & 1)]
        return values

    def run(self, warps: int = 4, **options):
        """Execute the lines; return the report."""
        declarations = f".reg .b32 %c<{self.count}>; .reg .b32 %a<4>; .reg .b64 %da; .reg .b64 %db; .reg .b64 %dc;"
        declarations += ".reg .b64 %dd; .reg .b64 %dn;"
        prologue = f"mad.wide.u32 %dn, %t, 16, %ptr1; mad.wide.u32 %dc, %t, {4 * self.count}, %ptr2;"
        prologue += f"mad.wide.u32 %dd, %t, {4 * self.count}, %ptr3;"
        ptx = kernel(prologue + "\n".join(self.lines.values()), 4, declarations)
        return run(ptx, "k", (1,), warps, SHARED, [self.image, self.a, self.c, self.d], **options)

    def check(self, expected: torch.Tensor, **options) -> None:
        for late in (False, True):
            self.d.fill_(float("nan"))
            assert self.run(late=late, **options).races == []
            assert torch.equal(self.d, self.scatter(expected))


@pytest.mark.parametrize("in_registers", [True, False], ids=["registers", "descriptors"])
@pytest.mark.parametrize("swizzle", SWIZZLES)
@pytest.mark.parametrize("kind", DTYPES)
def test_operands_in_each_layout(kind, swizzle, in_registers):
    transposes = [(0, 0)] if kind == "tf32" else [(0, 0), (0, 1), (1, 0), (1, 1)]
    for choice in transposes if not in_registers else transposes[:2]:
        product = Product(kind, 16, swizzle, in_registers, choice)
        product.check(product.A @ product.B + product.C)


@pytest.mark.parametrize("columns", [8, 24, 256])
def test_numbers_of_columns(columns):
    product = Product("bf16", columns)
    product.check(product.A @ product.B + product.C)


@pytest.mark.parametrize("swizzle", [64, 128])
def test_a_start_within_the_swizzled_atom(swizzle):
    product = Product("tf32", 16, swizzle, in_registers=False, start=32)
    product.check(product.A @ product.B + product.C)


def test_signs_and_a_product_that_starts_from_zero():
    product = Product("f16", 8)
    for sign_a, sign_b in itertools.product((1, -1), (1, -1)):
        product.lines["product"] = product.product("1", sign_a, sign_b)
        product.check(sign_a * sign_b * product.A @ product.B + product.C)
    product.c[:] = float("nan")
    product.lines["product"] = "setp.ne.u32 %p2, %t, %t;" + product.product("%p2")
    product.check(product.A @ product.B)
    product.lines["product"] = product.product("0")
    product.check(product.A @ product.B)


def test_products_of_one_shape_accumulate_without_a_fence_between_them():
    product = Product("tf32", 16)
    product.lines["product"] *= 3
    product.check(3 * product.A @ product.B + product.C)
    product.check(3 * product.A @ product.B + product.C, schedule=[2, 0, 3, 1])


def test_each_warpgroup_has_its_own_operands():
    """Two groups; the second one's A lies 64 rows on, where there is another matrix."""
    product = Product("tf32", 8, in_registers=False)
    image = product.image.numpy()
    second = torch.randint(-8, 9, (64, 8)).float()
    place(image, 64 * 128, second, 128, False)
    product.lines["descriptors"] += "setp.ge.u32 %p3, %t, 128; @%p3 add.s64 %da, %da, 512;"
    product.lines["copy"] = product.lines["copy"].replace("2048", "4096")
    product.c = torch.cat([product.c] * 2)
    product.d = torch.full((256, product.count), float("nan"))
    product.a = torch.zeros(256, 4)
    assert product.run(warps=8).races == []
    assert torch.equal(product.d[:128], product.scatter(product.A @ product.B + product.C))
    assert torch.equal(product.d[128:], product.scatter(second @ product.B + product.C))


FENCE, WAIT = "wgmma.fence.sync.aligned;", "wgmma.wait_group.sync.aligned 0;"
FULL = "wgmma.commit_group.sync.aligned; " + WAIT
ACCUMULATORS, OPERANDS = "{%c0, %c1, %c2, %c3}", "{%a0, %a1, %a2, %a3}"
OTHER_SHAPE = f"wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {ACCUMULATORS}, {OPERANDS}, %db, 1, 1, 1, 0;"
CHAINED = (
    f"wgmma.mma_async.sync.aligned.m64n8k8.f32.tf32.tf32 {{%r10, %r11, %r12, %r13}}, {ACCUMULATORS}, %db, 1, 1, 1;"
)
FEW, LAST = "setp.lt.u32 %p2, %t, 32;", "setp.lt.u32 %p2, %t, 96;"
PRODUCT, B = Product("tf32", 16).product, descriptor(B_AT, 128, transposed=False)
BROKEN = {  # what is changed -> line of `Product`, its new text, error
    "no fence": ("fence", "", Unfenced),
    "an accumulator written behind the fence": ("fence", f"{FENCE} mov.b32 %c1, 0;", Unfenced),
    "an operand written behind the fence": ("fence", f"{FENCE} mov.b32 %a1, %a2;", Unfenced),
    "an accumulator read behind the fence": ("fence", f"{FENCE} mov.b32 %r9, %c2;", Unfenced),
    "a fence by some of the warps": ("fence", f"{LAST} @%p2 {FENCE}", Unfenced),
    "no commit": ("commit", "", InFlight),
    "no wait": ("wait", "", InFlight),
    "a wait for all but the last group": ("wait", "wgmma.wait_group.sync.aligned 1;", InFlight),
    "a wait by some of the warps": ("wait", f"{LAST} @%p2 {WAIT}", InFlight),
    "an accumulator read before the wait": ("wait", f"mov.b32 %r9, %c0; {WAIT}", InFlight),
    "an accumulator written before the wait": ("wait", f"mov.b32 %c0, 0; {WAIT}", InFlight),
    "an operand written before the wait": ("wait", f"mov.b32 %a3, 0; {WAIT}", InFlight),
    "another descriptor in one warp": ("descriptors", f"{FEW} mov.b64 %db, {B}; @%p2 mov.b64 %db, {B + 2};", Diverged),
    "another predicate in one lane": ("product", "setp.ne.u32 %p2, %t, 5;" + PRODUCT("%p2"), Diverged),
    "one warp without the product": ("product", f"{LAST} @%p2 {PRODUCT()}", Diverged),
    "one warp with another product": ("product", f"{LAST} @%p2 {PRODUCT()} @!%p2 {PRODUCT()}", Diverged),
    "a base offset": ("descriptors", f"mov.b64 %db, {B | 1 << 49};", Unsupported),
    "reserved bits": ("descriptors", f"mov.b64 %db, {B | 1 << 55};", Unsupported),
    "an operand beyond shared memory": ("descriptors", f"mov.b64 %db, {B + (SHARED - B_AT - 128 >> 4)};", OutOfBounds),
    "another shape on the same accumulators": ("product", PRODUCT() + OTHER_SHAPE, InFlight),
    "another shape behind a fence": ("product", PRODUCT() + FENCE + OTHER_SHAPE, InFlight),
    "an accumulator as the next operand": ("product", PRODUCT() + CHAINED, InFlight),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_rules_of_registers_and_warps_are_errors(fault: str):
    line, text, error = BROKEN[fault]
    product = Product("tf32", 16)
    product.lines[line] = text
    with pytest.raises(error):
        product.run()


@pytest.mark.parametrize("second", [OTHER_SHAPE, CHAINED])
def test_a_product_that_was_waited_for_leaves_its_registers_free(second):
    product = Product("tf32", 16)
    product.lines["product"] = PRODUCT() + FULL + FENCE + second
    assert product.run().races == []


def test_a_block_of_less_than_a_warpgroup():
    product = Product("tf32", 8)
    product.lines["copy"] = COPY.replace("2048", "1024")
    with pytest.raises(Diverged, match="four warps"):
        product.run(warps=2)


UNFENCED, PENDING = "async read of unfenced write", "write during async read"
PROXY, BARRIER = "fence.proxy.async.shared::cta;", "bar.sync 0;"
READERS = "setp.ge.u32 %p2, %t, 64; @%p2"  # the warps that write none of B


@pytest.mark.parametrize(
    ("between", "expected"),
    [
        (f"{PROXY} {BARRIER}", set()),  # by the writers
        (f"{BARRIER} {PROXY}", set()),  # by the readers
        (f"{BARRIER} {READERS} {PROXY} {BARRIER}", set()),  # by a third, between barriers
        (BARRIER, {UNFENCED}),
        (f"{READERS} {PROXY} {BARRIER}", {UNFENCED}),  # by some of the writers
        (f"{BARRIER} {READERS} {PROXY}", {UNFENCED}),  # by some of the readers
        (f"{PROXY} {BARRIER} st.shared.b32 [%r1+32768], %r4; {BARRIER}", {UNFENCED}),  # too early
        (PROXY, {"read after write", UNFENCED}),
    ],
)
def test_writes_reach_the_async_proxy_behind_a_fence(between, expected):
    product = Product("tf32", 8)
    product.lines["visible"] = between
    assert {race.kind for race in product.run().races} == expected
    assert bool(product.run(schedule=[3, 1, 0, 2]).races) == bool(expected)


STORE = "setp.eq.u32 %p2, %t, 0; @%p2 st.shared.b32 [%r1+{at}], 0;"


@pytest.mark.parametrize(
    ("line", "text", "expected"),
    [
        ("wait", f"{STORE.format(at=B_AT)} {WAIT}", {PENDING}),
        ("wait", f"{STORE.format(at=B_AT + 256 + 32)} {WAIT}", {PENDING}),
        ("wait", f"{STORE.format(at=B_AT + 1024)} {WAIT}", set()),  # no row of B lies there
        ("wait", f"cp.async.ca.shared.global [%r1+{B_AT}], [%ptr0], 4; {WAIT}", {PENDING}),
        ("wait", f"{WAIT} {STORE.format(at=B_AT)}", {"write after read"}),  # other warps may still wait
        ("wait", f"{WAIT} {BARRIER} {STORE.format(at=B_AT)}", set()),
        ("fence", f"cp.async.ca.shared.global [%r1+{B_AT}], [%ptr0], 4; {FENCE}", {"read during cp.async"}),
    ],
)
def test_shared_operands_must_not_change_while_they_are_read(line, text, expected):
    product = Product("tf32", 8)
    product.lines[line] = text
    results = []
    for late in (False, True):
        races = {race.kind for race in product.run(late=late).races}
        assert races >= expected
        assert bool(races) == bool(expected)
        results.append(product.d.clone())
    changed = expected == {PENDING} and "st.shared" in text
    assert torch.equal(*results) != changed  # a test that only compares early and late reads would see these


@pytest.mark.parametrize(
    "line",
    [
        "wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {%r1, %r2, %r3, %r4}, %d1, %d2, 1, 1, 1;",
        "wgmma.mma_async.sync.aligned.m64n8k16.f32.f16.f16 {%r1, %r2, %r3, %r4}, %d1, %d2, 1, 1, 1;",
        "wgmma.mma_async.sync.aligned.m64n8k8.f32.tf32.tf32 {%r1, %r2, %r3}, %d1, %d2, 1, 1, 1;",
        "wgmma.mma_async.sync.aligned.m64n8k8.f32.tf32.tf32 {%r1, %r2, %r3, %r4}, %d1, %d2, 1, 2, 1;",
    ],
)
def test_other_forms_are_refused(line):
    with pytest.raises(Unsupported) as error:
        run(kernel(line, 0), "k", (1,), 4, 0, [])
    assert isinstance(error.value, PTXError)
