"""The instruction mix of main loops in NVIDIA's and AMD's code."""

import pytest

from mfbench.inspect.machine_code import Mix, compare_and_swap, main_loop

SASS = """
        /*0000*/                   LDG.E.128 R4, desc[UR42][R4.64] ;
.L_x_0:
        /*0010*/                   FFMA R1, R2, R3, R1 ;
        /*0020*/               @P0 BRA `(.L_x_0) ;
.L_x_1:
        /*0030*/                   LDGSTS.E.BYPASS.128 [R157], desc[UR42][R16.64], P1 ;
        /*0040*/                   LDGSTS.E.64 [R19+0xc000], desc[UR42][R24.64], P1 ;
        /*0050*/                   LDG.E.U8 R4, desc[UR42][R4.64] ;
        /*0060*/                   LDG.E.U16.CONSTANT R4, desc[UR42][R4.64] ;
        /*0070*/                   LDSM.16.MT88.4 R4, [R5] ;
        /*0080*/                   LDS R4, [R5] ;
        /*0090*/                   HMMA.1688.F32.TF32 R4, R5, R6, R7 ;
        /*00a0*/                   HMMA.1688.F32.TF32 R4, R5, R6, R7 ;
        /*00b0*/                   FADD R4, R5, R6 ;
        /*00c0*/                   FSEL R4, R5, R6, P0 ;
        /*00d0*/              @!UP0 REDG.E.ADD.F32x4.FTZ.RN.STRONG.GPU desc[UR42][R36.64], R40 ;
        /*00e0*/                   RED.E.ADD.F32.FTZ.RN.STRONG.GPU [R42.64], R26 ;
        /*00f0*/                   SHFL.BFLY PT, R30, R30, R153, 0x1f ;
        /*0100*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;
        /*0110*/                   BRA `(.L_x_2) ;
.L_x_3:
        /*0120*/               @P0 BRA `(.L_x_1) ;
        /*0130*/                   EXIT ;
.L_x_2:
        /*0140*/                   HMMA.1688.F32.TF32 R4, R5, R6, R7 ;
        /*0150*/                   BRA `(.L_x_3) ;
.L_x_4:
        /*0160*/                   BRA `(.L_x_4);
"""


AMD = """
\ts_branch .LBB0_2
.LBB0_1:                                ;   in Loop: Header=BB0_2 Depth=1
\tds_read2_b32 v[0:1], v2 offset1:8
\tds_read_b64_tr_b16 v[0:1], v2
\tds_write_b16_d16_hi v2, v3
\tv_mfma_f32_16x16x4_f32 v[0:3], v4, v5, v[0:3]
\tv_pk_add_f32 v[0:1], v[2:3], v[4:5]
\tv_cndmask_b32_e64 v0, v1, v2, s[0:1]
\tbuffer_atomic_add_f32 v0, v1, s[0:3], 0 offen
\ts_barrier
\ts_cbranch_scc1 .LBB0_4
.LBB0_2:                                ; =>This Inner Loop Header: Depth=1
\tbuffer_load_dwordx4 v[0:3], v4, s[0:3], 0 offen
\ts_cbranch_execz .LBB0_1
; %bb.3:                                ;   in Loop: Header=BB0_2 Depth=1
\tbuffer_load_ubyte v0, v4, s[0:3], 0 offen
\ts_branch .LBB0_1
.LBB0_4:                                ; %._crit_edge
\tv_pk_add_f32 v[0:1], v[2:3], v[4:5]
\ts_endpgm
"""
# As LLVM orders them: the end of the outer loop comes first, and the inner loop branches back to it.
NESTED_AMD = """
\ts_branch .LBB0_2
.LBB0_1:                                ; %._crit_edge
                                        ;   in Loop: Header=BB0_2 Depth=1
\tv_add_f32 v0, v1, v2
\ts_cbranch_scc0 .LBB0_5
.LBB0_2:                                ; =>This Loop Header: Depth=1
                                        ;     Child Loop BB0_4 Depth 2
\tglobal_load_b64 v[0:1], v[2:3], off
\ts_branch .LBB0_4
.LBB0_3:                                ;   in Loop: Header=BB0_4 Depth=2
\tv_wmma_f32_16x16x16_bf16 v[0:7], v[8:11], v[12:15], v[0:7]
\ts_cbranch_scc0 .LBB0_1
.LBB0_4:                                ;   Parent Loop BB0_2 Depth=1
                                        ; =>  This Inner Loop Header: Depth=2
\tglobal_load_b128 v[0:3], v[4:5], off
\ts_branch .LBB0_3
.LBB0_5:
\ts_endpgm
"""


NESTED = """
.L_x_0:
        /*0000*/                   LDG.E.64 R4, desc[UR42][R4.64] ;
.L_x_1:
        /*0010*/                   HMMA.1688.F32.TF32 R4, R5, R6, R7 ;
        /*0020*/               @P0 BRA `(.L_x_1) ;
.L_x_2:
        /*0030*/                   HMMA.1688.F32.TF32 R4, R5, R6, R7 ;
        /*0040*/                   HMMA.1688.F32.TF32 R4, R5, R6, R7 ;
        /*0050*/               @P0 BRA `(.L_x_2) ;
        /*0060*/               @P0 BRA `(.L_x_0) ;
        /*0070*/                   EXIT ;
"""


def test_mix_of_nvidia_code():
    assert main_loop(SASS) == Mix(
        instructions=16, issued=16, matrix=2, vector=1,
        load={1: 1, 2: 1, 8: 1, 16: 1}, load_once={1: 1, 2: 1, 8: 1, 16: 1}, atomic={4: 1, 16: 1},
        shared_load={4: 1}, fragment_load={16: 1}, shuffle=1, barrier=1,
    )  # fmt: skip


def test_mix_of_amd_code():
    assert main_loop(AMD) == Mix(
        instructions=13, issued=3, matrix=1, vector=1, load={1: 1, 16: 1},
        load_once={1: 1, 16: 1}, atomic={4: 1}, shared_load={8: 1},
        fragment_load={8: 1}, shared_store={2: 1}, barrier=1,
    )  # fmt: skip


def test_the_main_loop_of_amd_code_is_the_inner_one_with_the_arithmetic():
    mix = main_loop(NESTED_AMD)
    assert (mix.instructions, mix.matrix, mix.load) == (4, 1, {16: 1})
    mix = main_loop(NESTED_AMD, chunks=4)
    assert (mix.instructions, mix.matrix, mix.load, mix.load_once) == (4 + 4 * 4, 4, {8: 1, 16: 4}, {8: 1})


def test_loops_inside_the_main_loop_count_as_often_as_they_run():
    mix = main_loop(NESTED, chunks=4)
    assert (mix.instructions, mix.matrix, mix.load) == (2 + 4 * 5, 4 * 3, {8: 1})


def test_a_main_loop_whose_inner_loops_are_unrolled_counts_once():
    assert main_loop(SASS, chunks=2) == main_loop(SASS)


def test_no_loop():
    with pytest.raises(ValueError, match="expected a loop with arithmetic"):
        main_loop("        /*0000*/                   FADD R4, R5, R6 ;\n        /*0010*/    EXIT ;\n")


@pytest.mark.parametrize(
    ("line", "expected"),
    [("ATOM.E.CAS.STRONG.GPU PT, R2, [R2], R4, R5 ;", True), ("ATOMG.E.CAS R2, [R2]", True),
     ("\tbuffer_atomic_cmpswap v[0:1], v2", True), ("RED.E.ADD.F32 [R2], R3 ;", False),
     ("\tbuffer_atomic_add_f32 v0", False)],
)  # fmt: skip
def test_compare_and_swap_is_seen(line, expected):
    assert compare_and_swap(line) is expected
