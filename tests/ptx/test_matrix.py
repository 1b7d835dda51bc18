"""mma.sync, ldmatrix and stmatrix against the fragment layouts of the PTX manual, lane by lane."""

from __future__ import annotations

import pytest
import torch

from .snippets import execute

# shape -> (rows, depth, dtype of A and B, number of A, B and C registers of a thread)
SHAPES = {
    "m16n8k8.row.col.f32.tf32.tf32.f32": (16, 8, torch.float32, 4, 2, 4),
    "m16n8k4.row.col.f32.tf32.tf32.f32": (16, 4, torch.float32, 2, 1, 4),
    "m16n8k16.row.col.f32.bf16.bf16.f32": (16, 16, torch.bfloat16, 4, 2, 4),
    "m16n8k16.row.col.f32.f16.f16.f32": (16, 16, torch.float16, 4, 2, 4),
    "m16n8k8.row.col.f32.bf16.bf16.f32": (16, 8, torch.bfloat16, 2, 1, 4),
    "m8n8k4.row.col.f64.f64.f64.f64": (8, 4, torch.float64, 1, 1, 2),
}


def a_places(lane: int, rows: int, depth: int, width: int) -> list[tuple[int, int]]:
    """(row, column) of A's numbers in the order of the lane's registers, as the manual lists them."""
    group, thread = lane >> 2, lane & 3
    places = []
    for column in range(0, depth, 4 * width):
        for row in range(0, rows, 8):
            places += [(group + row, thread * width + h + column) for h in range(width)]
    return places


@pytest.mark.parametrize("shape", SHAPES)
def test_mma_fragments(shape):
    rows, depth, dtype, a_count, b_count, c_count = SHAPES[shape]
    width = 2 if dtype.itemsize == 2 else 1
    exact = torch.randint(-8, 9, (2, rows, depth)) / 4, torch.randint(-8, 9, (2, depth, 8)) / 4
    A, B = (x.to(dtype) for x in exact)
    result = torch.float64 if dtype == torch.float64 else torch.float32
    C = torch.randn(2, rows, 8, dtype=result).mul(64).round()
    a, b = torch.zeros(64, a_count * width, dtype=dtype), torch.zeros(64, b_count * width, dtype=dtype)
    c, d = torch.zeros(64, c_count, dtype=result), torch.full((64, c_count), float("nan"), dtype=result)
    corners = [(row, parity) for row in range(0, rows, 8) for parity in (0, 1)]
    for i in range(64):
        warp, lane = divmod(i, 32)
        a[i] = torch.stack([A[warp, r, k] for r, k in a_places(lane, rows, depth, width)])
        b[i] = torch.stack([B[warp, k, n] for n, k in a_places(lane, 8, depth, width)])
        c[i] = torch.stack([C[warp, lane // 4 + row, 2 * (lane % 4) + p] for row, p in corners])

    bits = 8 * dtype.itemsize if dtype == torch.float64 else 32
    registers, size = ("%d" if bits == 64 else "%r"), bits // 8
    names = [f"{registers}{i}" for i in range(1, 1 + a_count + b_count + 2 * c_count)]
    parts = names[:a_count], names[a_count:][:b_count], names[a_count + b_count :][:c_count], names[-c_count:]
    body = []
    for pointer, part in zip(("%ptr0", "%ptr1", "%ptr2", "%ptr3"), parts, strict=True):
        body.append(f"mad.wide.u32 {pointer}, %t, {size * len(part)}, {pointer};")
        if pointer != "%ptr3":
            body += [f"ld.global.b{bits} {name}, [{pointer}+{size * i}];" for i, name in enumerate(part)]
    a_v, b_v, c_v, d_v = ("{" + ", ".join(part) + "}" for part in parts)
    body.append(f"mma.sync.aligned.{shape} {d_v}, {a_v}, {b_v}, {c_v};")
    body += [f"st.global.b{bits} [%ptr3+{size * i}], {name};" for i, name in enumerate(parts[3])]
    execute("\n".join(body), a, b, c, d)

    expected = A.double() @ B.double() + C.double()
    for i in range(64):
        warp, lane = divmod(i, 32)
        assert d[i].tolist() == [expected[warp, lane // 4 + row, 2 * (lane % 4) + p].item() for row, p in corners]


def test_mma_reads_only_the_bits_that_tf32_has():
    a = torch.full((32,), 0x3F801FFF, dtype=torch.int32).view(torch.float32)  # 1 + 2**-11 + ...: tf32 keeps 1
    out = torch.zeros(32)
    body = """mad.wide.u32 %ptr0, %t, 4, %ptr0; mad.wide.u32 %ptr1, %t, 4, %ptr1; ld.global.b32 %r1, [%ptr0];
    mov.b32 %r2, 0;
    mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32
        {%r3, %r4, %r5, %r6}, {%r1, %r1, %r1, %r1}, {%r1, %r1}, {%r2, %r2, %r2, %r2};
    st.global.b32 [%ptr1], %r3;"""
    execute(body, a, out, warps=1)
    assert out.tolist() == [8.0] * 32


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_matrices_through_shared_memory(count, transposed):
    """ldmatrix gives lane l the numbers of row l / 4 at columns 2 (l % 4) and one on; stmatrix puts them back."""
    matrices = torch.randint(1 << 15, (count, 8, 8), dtype=torch.int16)
    loaded, stored = torch.zeros(32, count, 2, dtype=torch.int16), torch.zeros(count, 8, 8, dtype=torch.int16)
    names = "{" + ", ".join(f"%r{20 + i}" for i in range(count)) + "}"
    trans = ".trans" if transposed else ""
    body = f"""
    mov.b32 %r1, memory; mad.lo.s32 %r2, %t, 16, %r1; setp.lt.u32 %p1, %t, {8 * count};
    mad.wide.u32 %d1, %t, 16, %ptr0; mad.wide.u32 %d2, %t, {4 * count}, %ptr1; mad.wide.u32 %d3, %t, 16, %ptr2;
    @%p1 ld.global.v4.b32 {{%r3, %r4, %r5, %r6}}, [%d1]; @%p1 st.shared.v4.b32 [%r2], {{%r3, %r4, %r5, %r6}};
    bar.sync 0;
    ldmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 {names}, [%r2];
    """
    body += "".join(f"st.global.b32 [%d2+{4 * i}], %r{20 + i};\n" for i in range(count))
    body += f"""bar.sync 0;
    stmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 [%r2], {names};
    bar.sync 0;
    @%p1 ld.shared.v4.b32 {{%r7, %r8, %r9, %r10}}, [%r2]; @%p1 st.global.v4.b32 [%d3], {{%r7, %r8, %r9, %r10}};"""
    report = execute(body, matrices, loaded, stored, warps=1, shared=512)
    assert report.races == []
    source = matrices.transpose(1, 2) if transposed else matrices
    for lane in range(32):
        expected = source[:, lane // 4, 2 * (lane % 4) :][:, :2]
        assert torch.equal(loaded[lane], expected)
    assert torch.equal(stored, matrices)
