"""Blocks in braces with labels and registers of their own."""

from __future__ import annotations

import torch

from .scopes import unscoped
from .snippets import elementwise

LOOP = """{
    .reg .pred done; .reg .b32 left;
    mov.b32 left, {count};
again:
    add.s32 %r1, %r1, 1; sub.s32 left, left, 1; // { in a comment
    setp.eq.s32 done, left, 0;
    @!done bra.uni again;
    mov.b64 %d1, {%r1, %r1}; mov.b64 {%r1, _}, %d1;
}
"""


def test_blocks_with_the_same_names_do_not_meet():
    code = "mov.b32 %r1, %a0;\n" + LOOP.replace("{count}", "3") + LOOP.replace("{count}", "5") + "mov.b32 %y0, %r1;"
    (result,) = elementwise(code, [torch.arange(32, dtype=torch.int32)], torch.int32)
    assert result.tolist() == list(range(8, 40))


def test_lines_stay_where_they_are():
    text = "a;\n" + LOOP + "b;"
    assert unscoped(text).count("\n") == text.count("\n")
    assert unscoped(text).split("\n")[-1] == "b;"


def test_a_block_within_a_block():
    inner = "{ .reg .b32 x; mov.b32 x, 2; add.s32 %r1, %r1, x; }"
    code = f"mov.b32 %r1, 0;\n{{ .reg .b32 x; mov.b32 x, 7; {inner} add.s32 %r1, %r1, x; }}\nmov.b32 %y0, %r1;"
    (result,) = elementwise(code, [torch.zeros(1, dtype=torch.int32)], torch.int32)
    assert result.tolist() == [9]
