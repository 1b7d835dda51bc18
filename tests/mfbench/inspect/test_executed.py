"""Which instructions the tests' interpreter executes."""

from mfbench.inspect.executed import EXECUTED, unexecuted
from tests.ptx import run
from tests.ptx.program import CONTROL, INSTRUCTIONS

MODULE = """.version 8.7
.target sm_100a
.visible .entry k(.param .u64 k_param_0)
{
	.reg .b32 %r<9>;
$L__BB0_1: // like tanh.approx.f32
	@%p1 tanh.approx.f32 	%r1, %r2;
	{ .reg .pred done;
waitLoop:
	mbarrier.try_wait.parity.shared::cta.b64 done, [%r1], %r2;
	@!done bra.uni waitLoop;
	}
	wgmma.fence.sync.aligned;
	wgmma.mma_async.sp.sync.aligned.m64n8k16.f32.tf32.tf32 {%r1}, %rd1, %rd2, %r3, 0, 1, 1, 1;
	tcgen05.cp.cta_group::1.128x256b [%r1], %rd1;
	tcgen05.wait::ld.sync.aligned;
	mbarrier.arrive.shared::cta.b64 _, [%r1];
	tanh.approx.f32 %r1, %r2;
	ret;
}
	.section .debug_str { .b8 1; }
"""


def test_the_list_is_what_the_interpreter_has():
    assert callable(run)  # its module registers the instructions
    assert INSTRUCTIONS.keys() | CONTROL == EXECUTED


def test_instructions_that_are_not_in_the_list():
    assert unexecuted(MODULE) == ["mbarrier.arrive", "tanh.approx", "tcgen05.cp"]
