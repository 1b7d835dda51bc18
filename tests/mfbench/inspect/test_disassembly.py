"""Kernels that are disassembled at once read as those that are disassembled alone."""

from __future__ import annotations

import re
import struct

import pytest

pytest.importorskip("triton", reason="Triton is not installed")
from kernels.gpu.config import TARGETS
from mfbench.inspect.builds import _compile
from mfbench.inspect.disassembly import disassemble
from mfbench.inspect.machine_code import compare_and_swap, main_loop
from tests.mfbench.inspect.configurations import spec

CUDA = [name for name, target in TARGETS.items() if target.backend == "cuda"]


def instructions(assembly: str) -> list[str]:
    """Without the targets of branches and calls, which are labels of one kernel or addresses among all."""
    lines = re.findall(r"/\*[0-9a-f]+\*/ +(.*?) *;", assembly)
    return [" ".join(re.sub(r"`\(.*\)|\b0x[0-9a-f]+(?= *$| *[&?])", "TARGET", line).split()) for line in lines]


@pytest.mark.parametrize(
    "target", [pytest.param(target, marks=() if target == "sm_80" else pytest.mark.compilers) for target in CUDA]
)
def test_several_kernels_read_as_one(target):
    launches = _compile(spec(target)) + _compile(spec(target, precision="ieee", encoding="odd-uint8-code"))
    together = disassemble([launch.cubin for launch in launches], target)
    for launch, assembly in zip(launches, together, strict=True):
        alone = launch.sass
        assert instructions(assembly) == instructions(alone)
        assert len(instructions(alone)) > 100
        assert compare_and_swap(assembly) == compare_and_swap(alone)
        if launch.name.endswith("_step"):
            assert main_loop(assembly) == main_loop(alone)


def test_nothing_to_disassemble():
    assert disassemble([], "sm_90") == []


def test_a_cubin_without_a_kernel():
    header = bytearray(64)
    struct.pack_into("<Q", header, 40, 64)  # offset of the sections, then their number
    struct.pack_into("<H", header, 60, 1)
    with pytest.raises(ValueError, match="expected one kernel, found 0"):
        disassemble([bytes(header) + bytes(64)], "sm_90")
