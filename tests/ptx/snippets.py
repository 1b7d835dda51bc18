"""Small pieces of PTX as kernels: a body between arrays that each thread loads from and stores to."""

from __future__ import annotations

import torch

from .machine import Report, run

HEADER = """.version 8.7
.target sm_80
.address_size 64
.extern .shared .align 16 .b8 memory[];
"""
BITS = {torch.float64: 64, torch.int64: 64, torch.float32: 32, torch.int32: 32, torch.int16: 16, torch.uint8: 8}


def kernel(body: str, parameters: int, declarations: str = "") -> str:
    """A module with one entry `k` of pointer parameters; %ptr0, %ptr1... hold them, %t the thread, %c the block."""
    names = ", ".join(f".param .u64 k_param_{i}" for i in range(parameters))
    loads = "\n".join(f"ld.param.b64 %ptr{i}, [k_param_{i}];" for i in range(parameters))
    return f"""{HEADER}
.visible .entry k({names})
{{
.reg .pred %p<20>; .reg .b16 %h<20>; .reg .b32 %r<40>; .reg .b64 %d<40>; .reg .b64 %ptr<8>; .reg .b32 %t; .reg .b32 %c;
{declarations}
{loads}
mov.u32 %t, %tid.x;
mov.u32 %c, %ctaid.x;
{body.replace(";", ";" + chr(10))}
ret;
}}
"""


def elementwise(operation: str, inputs: list[torch.Tensor], dtype: torch.dtype, results: int = 1) -> list[torch.Tensor]:
    """What `operation` computes from %a0, %a1... of each thread (its elements of `inputs`) into %y0, %y1..."""
    count = -(-len(inputs[0]) // 32) * 32
    padded = [torch.cat([x, x.new_zeros(count - len(x))]) for x in inputs]
    outputs = [torch.zeros(count, dtype=dtype) for _ in range(results)]
    lines, registers = [], []
    for i, array in enumerate([*padded, *outputs]):
        name, bits = (f"a{i}" if i < len(inputs) else f"y{i - len(inputs)}"), BITS[array.dtype]
        registers.append(f".reg .b{max(bits, 16)} %{name};")
        lines.append(f"mad.wide.u32 %ptr{i}, %t, {bits // 8}, %ptr{i};")
        if i < len(inputs):
            lines.append(f"ld.global.b{bits} %{name}, [%ptr{i}];")
    lines.append(operation)
    lines += [f"st.global.b{BITS[dtype]} [%ptr{len(inputs) + i}], %y{i};" for i in range(results)]
    ptx = kernel("\n".join(lines), len(inputs) + results, "\n".join(registers))
    run(ptx, "k", (1,), count // 32, 0, [*padded, *outputs])
    return [output[: len(inputs[0])] for output in outputs]


def execute(body: str, *args: torch.Tensor, warps: int = 2, shared: int = 0, grid: int = 1, **options) -> Report:
    return run(kernel(body, len(args)), "k", (grid,), warps, shared, list(args), **options)
