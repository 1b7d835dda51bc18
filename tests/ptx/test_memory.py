"""What the checks of memory see: accesses out of bounds, misaligned, unordered, and copies that nobody waited for."""

from __future__ import annotations

import pytest
import torch

from . import Misaligned, OutOfBounds
from .snippets import execute

ADDRESS = "mov.b32 %r1, memory; mad.lo.s32 %r2, %t, 4, %r1; mad.wide.u32 %d1, %t, 4, %ptr0;"
NEIGHBOUR = "xor.b32 %r3, %t, {distance}; mad.lo.s32 %r4, %r3, 4, %r1; ld.shared.b32 %r5, [%r4];"


def kinds(report) -> list[str]:
    return [race.kind for race in report.races]


def test_the_last_element_is_inside_and_the_next_is_not():
    x = torch.arange(64, dtype=torch.int32)
    execute(f"{ADDRESS} ld.global.b32 %r3, [%d1];", x)
    with pytest.raises(OutOfBounds, match=r"thread 63: 4 bytes .*byte 252 of argument 0: shape \(63,\)") as error:
        execute(f"{ADDRESS} ld.global.b32 %r3, [%d1];", x[:63])
    assert "ld.global.b32 %r3, [%d1]" in str(error.value)
    with pytest.raises(OutOfBounds, match="thread 0"):
        execute(f"{ADDRESS} st.global.b32 [%d1-4], %t;", x)
    with pytest.raises(OutOfBounds, match="thread 62"):  # half of a vector
        execute(f"{ADDRESS} mad.wide.u32 %d1, %t, 4, %d1; ld.global.v2.b32 {{%r3, %r4}}, [%d1];", torch.zeros(125))
    with pytest.raises(OutOfBounds, match="belong to no argument"):
        execute("ld.global.b32 %r3, [%d2+64];".replace("%d2", "%ptr1"), x, x[:0])


def test_a_guard_keeps_threads_inside():
    x = torch.arange(40, dtype=torch.int32)
    execute(f"{ADDRESS} setp.lt.u32 %p1, %t, 40; @%p1 ld.global.b32 %r3, [%d1]; @%p1 st.global.b32 [%d1], %r3;", x)
    assert x.tolist() == list(range(40))
    with pytest.raises(OutOfBounds, match="thread 40"):
        execute(f"{ADDRESS} setp.lt.u32 %p1, %t, 41; @%p1 red.global.gpu.relaxed.add.u32 [%d1], 1;", x)


def test_gaps_between_the_rows_of_a_strided_argument_are_outside():
    whole = torch.zeros(2, 40)
    body = """shr.u32 %r1, %t, 5; and.b32 %r2, %t, 31; mad.lo.u32 %r3, %r1, 40, %r2;
              mad.wide.u32 %d1, %r3, 4, %ptr0; ld.global.b32 %r4, [%d1];"""
    execute(body, whole[:, :32])
    with pytest.raises(OutOfBounds, match="thread 31"):
        execute(body, whole[:, :31])


def test_offsets_past_2_to_the_31_reach_their_element():
    big = torch.empty(3, dtype=torch.int32).as_strided((1,), (1,))
    stride = 2**30  # elements, so that row 2 starts at byte 2**33
    big = torch.empty_strided((3, 4), (stride, 1), dtype=torch.int32)  # untouched pages take no memory
    out = torch.zeros(1, dtype=torch.int32)
    big[2, 3] = 42
    body = "ld.global.b32 %r1, [%d1]; st.global.b32 [%ptr1], %r1;"
    execute(f"add.s64 %d1, %ptr0, {2 * stride * 4 + 12}; {body}", big, out, warps=1)
    assert out.item() == 42
    with pytest.raises(OutOfBounds):
        execute(f"add.s64 %d1, %ptr0, {2 * stride * 4 + 16}; {body}", big, out, warps=1)
    with pytest.raises(OutOfBounds):  # the same offset computed in 32 bits
        execute(f"mov.b32 %r2, {stride}; mul.lo.s32 %r2, %r2, 8; cvt.s64.s32 %d2, %r2; add.s64 %d2, %d2, 64;"
                f"add.s64 %d1, %ptr0, %d2; {body}", big, out, warps=1)  # fmt: skip


def test_misaligned_accesses_fault():
    with pytest.raises(Misaligned, match=r"thread 1: address .* not a multiple of 16"):
        execute(f"{ADDRESS} ld.global.v4.b32 {{%r3, %r4, %r5, %r6}}, [%d1];", torch.zeros(80))
    with pytest.raises(Misaligned):
        execute("mov.b32 %r1, memory; ld.shared.b64 %d1, [%r1+4];", shared=64)


def test_shared_memory_is_bounded_and_starts_as_nan():
    out = torch.zeros(64)
    body = f"{ADDRESS} ld.shared.b32 %r3, [%r2]; st.global.b32 [%d1], %r3;"
    execute(body, out, shared=256)
    assert out.isnan().all()
    with pytest.raises(OutOfBounds, match="thread 63: byte 252 of 252 bytes of shared"):
        execute(body, out, shared=252)
    with pytest.raises(OutOfBounds, match="byte -4"):
        execute("mov.b32 %r1, memory; st.shared.b32 [%r1-4], %r1;", shared=64)


def test_local_memory_is_each_thread_s_own():
    out = torch.zeros(64, dtype=torch.int32)
    body = """.local .align 8 .b8 depot[16];
    mov.b64 %d2, depot; cvta.local.u64 %d3, %d2; st.local.b32 [%d2+8], %t; ld.b32 %r1, [%d3+8];
    mad.wide.u32 %d1, %t, 4, %ptr0; st.global.b32 [%d1], %r1;"""
    execute(body, out)
    assert out.tolist() == list(range(64))
    with pytest.raises(OutOfBounds, match="byte 16 of 16 bytes of local"):
        execute(body.replace("[%d3+8]", "[%d3+16]"), out)


@pytest.mark.parametrize(
    ("distance", "between", "hazard"),
    [
        (32, "", True),
        (32, "bar.warp.sync -1;", True),  # orders the threads of one warp only
        (32, "bar.sync 0;", False),
        (1, "", True),
        (1, "bar.warp.sync -1;", False),
        (1, "bar.sync 0;", False),
        (0, "", False),  # each thread reads what it wrote
    ],
)
def test_write_then_read_and_read_then_write(distance, between, hazard):
    read, write = NEIGHBOUR.format(distance=distance), "st.shared.b32 [%r2], %t;"
    after_write = execute(f"{ADDRESS} {write} {between} {read}", torch.zeros(64), shared=256)
    after_read = execute(f"{ADDRESS} {write} bar.sync 0; {read} {between} {write}", torch.zeros(64), shared=256)
    assert kinds(after_write) == (["read after write"] if hazard else [])
    assert kinds(after_read) == (["write after read"] if hazard else [])
    if hazard:
        race = after_write.races[0]
        assert "ld.shared" in race.text
        assert race.threads[0] == race.threads[1] ^ distance
        assert race.earlier < race.line


def test_ldmatrix_reads_for_the_whole_warp():
    body = "{address} {write} {between} ldmatrix.sync.aligned.m8n8.x1.shared.b16 {{%r5}}, [%r3];"
    address = f"{ADDRESS} and.b32 %r3, %t, 7; mad.lo.s32 %r3, %r3, 16, %r1; setp.lt.u32 %p1, %t, 32;"
    write = "@%p1 st.shared.b32 [%r2], %t;"
    found = {}
    for between in ("", "bar.warp.sync -1;", "bar.sync 0;"):
        text = body.format(address=address, write=write, between=between)
        found[between] = kinds(execute(text, torch.zeros(64), shared=256, warps=2))
    assert found == {"": ["read after write"], "bar.warp.sync -1;": ["read after write"], "bar.sync 0;": []}


def test_threads_that_store_at_one_place_must_agree():
    agree = execute("mov.b32 %r1, memory; st.shared.b32 [%r1], 5;", shared=16)
    differ = execute("mov.b32 %r1, memory; st.shared.b32 [%r1], %t;", shared=16)
    assert kinds(agree) == []
    assert kinds(differ) == ["write with write"]
    assert kinds(execute("st.global.b32 [%ptr0], %t;", torch.zeros(1))) == ["write with write"]


def test_atomics_are_ordered_among_themselves_only():
    x = torch.zeros(1)
    atomic = "mov.b32 %r1, 0f3F800000; red.global.gpu.relaxed.add.f32 [%ptr0], %r1;"
    assert kinds(execute(atomic, x, grid=3)) == []
    assert x.item() == 192
    report = execute(f"{atomic} ld.global.b32 %r2, [%ptr0];", x)
    assert kinds(report) == ["read after atomic"]
    vector = "mov.b32 %r1, 0f3F800000; red.global.gpu.relaxed.add.v4.f32 [%ptr0], {%r1, %r1, %r1, %r1};"
    y = torch.zeros(4)
    assert kinds(execute(vector, y)) == []
    assert y.tolist() == [64.0] * 4
    counter, seen = torch.zeros(1, dtype=torch.int32), torch.zeros(64, dtype=torch.int32)
    body = "atom.global.gpu.relaxed.add.u32 %r1, [%ptr0], 2; mad.wide.u32 %d1, %t, 4, %ptr1; st.global.b32 [%d1], %r1;"
    execute(body, counter, seen)
    assert sorted(seen.tolist()) == list(range(0, 128, 2))
    sums, seen = torch.tensor([0.0, 100.0]), torch.zeros(64)
    body = "mov.b32 %r1, 0f3F800000; atom.global.gpu.relaxed.add.v2.f32 {%r2, %r3}, [%ptr0], {%r1, %r1};"
    body += "mad.wide.u32 %d1, %t, 4, %ptr1; st.global.b32 [%d1], %r3;"
    assert kinds(execute(body, sums, seen)) == []
    assert sums.tolist() == [64.0, 164.0]
    assert sorted(seen.tolist()) == list(range(100, 164))


def test_global_memory_is_watched_within_a_block_and_between_blocks():
    write = f"{ADDRESS} st.global.b32 [%d1], %t;"
    read = "xor.b32 %r3, %t, 32; mad.wide.u32 %d2, %r3, 4, %ptr0; ld.global.b32 %r5, [%d2];"
    x = torch.zeros(64)
    assert kinds(execute(f"{write} {read}", x)) == ["read after write"]
    assert kinds(execute(f"{write} bar.sync 0; {read}", x)) == []
    between = execute(f"{write} bar.sync 0; {read}".replace("[%d1], %t", "[%d1], %c"), x, grid=2).races
    assert {(race.kind, race.between_blocks) for race in between} == {
        ("write after write", True),
        ("write after read", True),
        ("read after write", True),
    }
    assert kinds(execute(f"{ADDRESS} ld.global.b32 %r5, [%d1];", x, grid=2)) == []


TICKET = "setp.eq.u32 %p1, %t, 0; @%p1 atom.global.gpu.acq_rel.add.u32 %r6, [%ptr1], 1; bar.sync 0;"
STORE = "mad.wide.u32 %d3, %c, 4, %ptr0; setp.eq.u32 %p2, %t, {thread}; @%p2 st.global.b32 [%d3], %t;"
ALL = "and.b32 %r7, %t, 3; mad.wide.u32 %d4, %r7, 4, %ptr0; setp.eq.u32 %p3, %c, 3; @%p3 ld.global.b32 %r8, [%d4];"


@pytest.mark.parametrize(
    ("body", "ordered"),
    [
        (STORE.format(thread=0) + TICKET + ALL, True),
        (STORE.format(thread=33) + "bar.sync 0;" + TICKET + ALL, True),
        (STORE.format(thread=33) + TICKET + ALL, False),  # another thread's store, and no barrier
        (TICKET + STORE.format(thread=0) + ALL, False),  # too late
        ((STORE.format(thread=0) + TICKET + ALL).replace("acq_rel", "relaxed"), False),
        (STORE.format(thread=0) + "bar.sync 0;" + ALL, False),
    ],
)
def test_blocks_are_ordered_by_tickets(body, ordered):
    """The block that reads what the others stored is the last one here."""
    report = execute(body, torch.zeros(4), torch.zeros(1, dtype=torch.int32), grid=4)
    between = {race.kind for race in report.races if race.between_blocks}
    assert between == (set() if ordered else {"read after write"})


COPY = f"{ADDRESS} cp.async.ca.shared.global [%r2], [%d1], 0x4; cp.async.commit_group;"
OUT = "mad.wide.u32 %d2, %t, 4, %ptr1; st.global.b32 [%d2], %r5;"


@pytest.mark.parametrize(
    ("distance", "between", "expected"),
    [
        (0, "", ["read during cp.async"]),
        (0, "bar.sync 0;", ["read during cp.async"]),  # a barrier waits for no copy
        (0, "cp.async.wait_group 1;", ["read during cp.async"]),
        (0, "cp.async.wait_group 0;", []),
        (0, "cp.async.wait_all;", []),
        (32, "cp.async.wait_group 0;", ["read after write"]),  # each thread waits for its own copies only
        (32, "cp.async.wait_group 0; bar.sync 0;", []),
    ],
)
def test_copies_land_when_they_are_waited_for(distance, between, expected):
    x, out = torch.arange(64, dtype=torch.float32), torch.zeros(64)
    report = execute(f"{COPY} {between} {NEIGHBOUR.format(distance=distance)} {OUT}", x, out, shared=256)
    assert kinds(report) == expected
    if "during cp.async" in str(expected):
        assert out.isnan().all()
    else:
        assert out.tolist() == [i ^ distance for i in range(64)]


def test_groups_land_in_order_and_copies_must_not_overtake_readers():
    x, out = torch.arange(128, dtype=torch.float32), torch.zeros(64)
    second = "cp.async.ca.shared.global [%r2+256], [%d1+256], 0x4; cp.async.commit_group;"
    for wait, values in ((1, [float(i) for i in range(64)]), (0, [float(i) for i in range(64)])):
        report = execute(f"{COPY} {second} cp.async.wait_group {wait}; ld.shared.b32 %r5, [%r2]; {OUT}",
                         x, out, shared=512)  # fmt: skip
        assert kinds(report) == []
        assert out.tolist() == values
    late = execute(f"{COPY} {second} cp.async.wait_group 1; ld.shared.b32 %r5, [%r2+256];", x, out, shared=512)
    assert kinds(late) == ["read during cp.async"]
    reader = "st.shared.b32 [%r2], %t; bar.sync 0; " + NEIGHBOUR.format(distance=32)
    early = execute(f"{ADDRESS} {reader} {COPY.removeprefix(ADDRESS)}", x, shared=256)
    assert kinds(early) == ["write after read"]


def test_a_copy_fills_what_it_does_not_read_with_zeros():
    x, out = torch.arange(40, dtype=torch.float32), torch.full((64,), float("nan"))
    body = f"""{ADDRESS} setp.lt.u32 %p1, %t, 40; selp.b32 %r6, 4, 0, %p1;
    cp.async.ca.shared.global [%r2], [%d1], 0x4, %r6; cp.async.wait_all; ld.shared.b32 %r5, [%r2]; {OUT}"""
    execute(body, x, out, shared=256)
    assert out.tolist() == [*range(40), *[0] * 24]


def test_running_warps_one_after_another_shows_what_a_missing_barrier_can_do():
    body = f"{ADDRESS} st.shared.b32 [%r2], %t; {{}} {NEIGHBOUR.format(distance=32)} st.global.b32 [%d1], %r5;"
    outcomes = {}
    for barrier in ("", "bar.sync 0;"):
        for schedule in (None, [0, 1], [1, 0]):
            out = torch.zeros(64, dtype=torch.int32)
            report = execute(body.format(barrier), out, shared=256, schedule=schedule)
            assert bool(report.races) == (not barrier)
            outcomes[barrier, str(schedule)] = out.tolist() == [i ^ 32 for i in range(64)]
    assert outcomes == {
        ("", "None"): True,
        ("", "[0, 1]"): False,
        ("", "[1, 0]"): False,
        ("bar.sync 0;", "None"): True,
        ("bar.sync 0;", "[0, 1]"): True,
        ("bar.sync 0;", "[1, 0]"): True,
    }
