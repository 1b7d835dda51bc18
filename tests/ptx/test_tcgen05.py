"""tcgen05, mbarrier and elect against products of drawn matrices, and each of their rules broken."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from . import Endless, Misused, Unsupported, run
from .memory import SHARED_BASE
from .snippets import kernel
from .test_wgmma import B_AT, COPY, DTYPES, SHARED, place, registers, strides

SWIZZLES = {0: 0, 32: 6, 64: 4, 128: 2}  # bytes of a row of the atom -> field of the descriptor
TYPE_FIELDS = {"tf32": 2, "bf16": 1, "f16": 0}
HALF = 16  # columns of D that a thread holds
COLUMNS = 2 * HALF
A_COLUMN = 32  # of the tensor memory allocated, where A begins
SLOT, BARRIER_AT = SHARED_BASE + SHARED, SHARED_BASE + SHARED + 16  # the address of tensor memory; an mbarrier


def descriptor(start: int, swizzle: int, transposed: bool) -> int:
    leading, stride = strides(swizzle, transposed)
    fixed = 0b001 << 46 | SWIZZLES[swizzle] << 61
    return (SHARED_BASE + start) >> 4 | leading >> 4 << 16 | stride >> 4 << 32 | fixed


def form(kind: str, transposes=(0, 0), negative=0) -> int:
    """Return the instruction descriptor of a product of 64 rows."""
    types = TYPE_FIELDS[kind] << 7 | TYPE_FIELDS[kind] << 10
    signs = negative << 13 | transposes[0] << 15 | transposes[1] << 16
    return 1 << 4 | types | signs | COLUMNS >> 3 << 17 | 64 >> 4 << 24


def spread(matrix: torch.Tensor) -> torch.Tensor:
    """Return the words of each thread for a 16x32bx2 access: 16 lanes the left half of a row, 16 the right one."""
    left, right = matrix.chunk(2, dim=1)
    return torch.cat([torch.cat([left[16 * w :][:16], right[16 * w :][:16]]) for w in range(4)]).contiguous()


class Product:
    """D = A B + C by one thread, as lines of PTX that a test may replace."""

    def __init__(self, kind: str, swizzle: int = 128, in_memory=True, transposes=(0, 0), negative=0, enable="1"):
        torch.manual_seed(swizzle)
        dtype, depth = DTYPES[kind], 8 if kind == "tf32" else 16
        self.A, self.B = torch.randint(-8, 9, (64, depth)) / 4, torch.randint(-8, 9, (depth, COLUMNS)) / 4
        self.C = torch.randint(-99, 99, (64, COLUMNS)).float()
        image = np.full(SHARED, 0xFF, np.uint8)
        place(image, B_AT, self.B.T.to(dtype), swizzle, bool(transposes[1]))
        if not in_memory:
            place(image, 0, self.A.to(dtype), swizzle, bool(transposes[0]))
        words = self.A.to(dtype).contiguous().view(torch.float32)
        self.arguments = [torch.from_numpy(image), spread(words), spread(self.C), torch.zeros(128, HALF)]
        a = f"[%base + {A_COLUMN}]" if in_memory else "%da"
        family = "tf32" if kind == "tf32" else "f16"
        bits = form(kind, transposes, negative)
        c, a_words = registers("c", HALF), registers("a", 4)
        self.lines = {
            "copy": COPY,
            "alloc": f"""setp.lt.u32 %p4, %t, 32; mov.b32 %slot, {SLOT}; mov.b32 %bar, {BARRIER_AT};
                @%p4 tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [%slot], 64; bar.sync 0;
                ld.shared.b32 %base, [%slot]; shr.u32 %r9, %t, 5; shl.b32 %r9, %r9, 21; add.s32 %mine, %base, %r9;
                @%p4 tcgen05.relinquish_alloc_permit.cta_group::1.sync.aligned;""",
            "load": "".join(f"ld.global.b32 %c{i}, [%dc+{4 * i}];" for i in range(HALF))
            + "".join(f"ld.global.b32 %a{i}, [%dn+{4 * i}];" for i in range(4)),
            "store": f"""tcgen05.st.sync.aligned.16x32bx2.x{HALF}.b32 [%mine + 0], {HALF}, {c};
                tcgen05.st.sync.aligned.16x32bx2.x4.b32 [%mine + {A_COLUMN}], 4, {a_words};""",
            "stored": "tcgen05.wait::st.sync.aligned;",
            "elect": "elect.sync %r8|%p5, -1; and.pred %p5, %p5, %p4;",
            "init": "@%p5 mbarrier.init.shared::cta.b64 [%bar], 1;",
            "visible": "fence.proxy.async.shared::cta; bar.sync 0;",
            "descriptors": f"""mov.b64 %da, {descriptor(0, swizzle, bool(transposes[0]))};
                mov.b64 %db, {descriptor(B_AT, swizzle, bool(transposes[1]))}; mov.b32 %form, {bits};""",
            "product": f"@%p5 tcgen05.mma.cta_group::1.kind::{family} [%base + 0], {a}, %db, %form, {enable};",
            "commit": "@%p5 tcgen05.commit.cta_group::1.mbarrier::arrive::one.shared::cluster.b64 [%bar];",
            "wait": """{ .reg .pred done;
                again: mbarrier.try_wait.parity.shared::cta.b64 done, [%bar], 0; @!done bra.uni again; }""",
            "result": f"tcgen05.ld.sync.aligned.16x32bx2.x{HALF}.b32 {c}, [%mine + 0], {HALF};",
            "loaded": "tcgen05.wait::ld.sync.aligned;",
            "out": "".join(f"st.global.b32 [%dd+{4 * i}], %c{i};" for i in range(HALF)),
            "inval": "bar.sync 0; @%p5 mbarrier.inval.shared::cta.b64 [%bar];",
            "dealloc": "@%p4 tcgen05.dealloc.cta_group::1.sync.aligned.b32 %base, 64;",
        }

    def run(self, **options):
        declarations = f".reg .b32 %c<{HALF}>; .reg .b32 %a<4>; .reg .b64 %da; .reg .b64 %db; .reg .b64 %dc;"
        declarations += ".reg .b64 %dd; .reg .b64 %dn; .reg .b32 %slot; .reg .b32 %bar; .reg .b32 %base;"
        declarations += ".reg .b32 %mine; .reg .b32 %form;"
        prologue = f"mad.wide.u32 %dn, %t, 16, %ptr1; mad.wide.u32 %dc, %t, {4 * HALF}, %ptr2;"
        prologue += f"mad.wide.u32 %dd, %t, {4 * HALF}, %ptr3;"
        ptx = kernel(prologue + "\n".join(self.lines.values()), 4, declarations)
        return run(ptx, "k", (1,), 4, SHARED + 32, self.arguments, **options)

    def check(self, expected: torch.Tensor) -> None:
        for late in (False, True):
            self.arguments[3].fill_(float("nan"))
            assert self.run(late=late).races == []
            assert torch.equal(self.arguments[3], spread(expected))


@pytest.mark.parametrize("in_memory", [True, False], ids=["tensor memory", "descriptors"])
@pytest.mark.parametrize("swizzle", SWIZZLES)
@pytest.mark.parametrize("kind", DTYPES)
def test_operands_in_each_layout(kind, swizzle, in_memory):
    transposes = [(0, 0)] if kind == "tf32" else [(0, 0), (0, 1), (1, 1)]
    for choice in transposes[: 2 if in_memory else 3]:
        product = Product(kind, swizzle, in_memory, choice)
        product.check(product.A @ product.B + product.C)


def test_a_negative_product_and_one_that_starts_from_zero():
    product = Product("tf32", negative=1)
    product.check(product.C - product.A @ product.B)
    product = Product("bf16", enable="0")
    product.check(product.A @ product.B)


def test_products_add_up_in_the_order_of_their_issue():
    product = Product("tf32", in_memory=False)
    product.lines["product"] *= 3
    product.check(3 * product.A @ product.B + product.C)


def test_threads_that_poll_let_the_others_go_on():
    """Three warps wait in earlier code than that in which the first one issues the product."""
    product = Product("tf32")
    lines = product.lines
    lines["product"] = f"@%p4 bra WORK;\nWAIT:\n{lines['wait']}\nbra.uni DONE;\nWORK:\n{lines['product']}"
    lines["commit"] += "\nbra.uni WAIT;\nDONE:\n"
    lines["wait"] = ""
    product.check(product.A @ product.B + product.C)


ERRORS = {  # what is changed -> line of `Product`, its new text, error
    "no mbarrier": ("init", "", Misused),
    "no commit": ("commit", "", Endless),
    "a wait for the next phase": ("wait", "L: mbarrier.try_wait.parity.shared::cta.b64 %p6, [%bar], 0; @!%p6 bra L; "
                                  "M: mbarrier.try_wait.parity.shared::cta.b64 %p6, [%bar], 1; @!%p6 bra M;", Endless),
    "an mbarrier given up before the arrival": (
        "wait", "bar.sync 0; @%p5 mbarrier.inval.shared::cta.b64 [%bar]; bar.sync 0;", Misused),
    "memory not given back": ("dealloc", "", Misused),
    "memory given back while in use": (
        "wait", "bar.sync 0; @%p4 tcgen05.dealloc.cta_group::1.sync.aligned.b32 %base, 64;", Misused),
    "memory given back twice": (
        "dealloc", "@%p4 tcgen05.dealloc.cta_group::1.sync.aligned.b32 %base, 64;" * 2, Misused),
    "memory allocated after giving up the permit": (
        "load", "@%p4 tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [%slot], 64;", Misused),
    "lanes of another warp": ("result", "tcgen05.ld.sync.aligned.16x32bx2.x1.b32 {%c0}, [%base + 0], 1;", Misused),
    "columns that are not allocated": (
        "result", "tcgen05.ld.sync.aligned.16x32bx2.x1.b32 {%c0}, [%mine + 64], 1;", Misused),
    "a base offset": ("descriptors", f"mov.b64 %db, {descriptor(B_AT, 128, False) | 1 << 49}; "
                      f"mov.b32 %form, {form('tf32')};", Unsupported),
    "a descriptor for wgmma": ("descriptors", f"mov.b64 %db, {descriptor(B_AT, 128, False) & ~(1 << 46)}; "
                               f"mov.b32 %form, {form('tf32')};", Unsupported),
    "a sparse product": ("descriptors", f"mov.b64 %db, {descriptor(B_AT, 128, False)}; "
                         f"mov.b32 %form, {form('tf32') | 4};", Unsupported),
}  # fmt: skip


@pytest.mark.parametrize("fault", ERRORS)
def test_misuse_is_an_error(fault):
    line, text, error = ERRORS[fault]
    product = Product("tf32")
    product.lines[line] = text
    with pytest.raises(error):
        product.run()


AGAIN = "bar.sync 0; @%p5 mbarrier.init.shared::cta.b64 [%bar], 1; fence.proxy.async.shared::cta; bar.sync 0;"


SECOND = AGAIN + " {product} {commit} {wait}"  # a product that is right where the first one's result has been read


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"stored": ""}, "write during write"),  # D may not have been stored
        ({"wait": "", "loaded": "tcgen05.wait::ld.sync.aligned; {wait}"}, "read during tcgen05.mma"),
        ({"visible": "bar.sync 0;"}, "async read of unfenced write"),
        ({"visible": "fence.proxy.async.shared::cta;"}, "read after write"),
        ({"loaded": SECOND}, "write during read"),
        ({"loaded": "tcgen05.wait::ld.sync.aligned;" + SECOND}, None),
        ({"loaded": "tcgen05.wait::ld.sync.aligned;" + SECOND.replace("bar.sync 0;", "")}, "write after read"),
        ({"wait": "@%p4 st.shared.b32 [%r1+32768], 0; {wait}"}, "write during async read"),
        ({"wait": "{wait} @%p4 st.shared.b32 [%r1+32768], 0;"}, None),
    ],
)
def test_what_is_not_ordered_is_a_race(changes, expected):
    product, lines = Product("tf32"), Product("tf32").lines
    for line, text in changes.items():
        for name in ("product", "commit", "wait"):
            text = text.replace("{" + name + "}", lines[name])
        product.lines[line] = text
    kinds = {race.kind for race in product.run().races}
    assert expected in kinds if expected else not kinds
