"""Small Triton kernels that between them use what the fused kernel may use, compiled for a named target."""

from __future__ import annotations

import functools
from typing import Any

import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from .machine import Report, run

TYPES = {
    torch.float64: "*fp64",
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.uint8: "*u8",
    torch.int32: "*i32",
}


@triton.jit
def add(x_ptr, y_ptr, out_ptr, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    x = tl.load(x_ptr + at, mask=inside, other=0)
    y = tl.load(y_ptr + at, mask=inside, other=0)
    tl.store(out_ptr + at, x + y, mask=inside)


@triton.jit
def matmul(
    a_ptr, b_ptr, c_ptr, M, N, K, stride_am, stride_ak, stride_bk, stride_bn,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """C (M, N) = A B; any strides, the tiles of K pipelined."""
    i, j, k = tl.program_id(0) * BM + tl.arange(0, BM), tl.program_id(1) * BN + tl.arange(0, BN), tl.arange(0, BK)
    out_type: tl.constexpr = tl.float64 if a_ptr.dtype.element_ty == tl.float64 else tl.float32
    total = tl.zeros([BM, BN], out_type)
    for start in range(0, K, BK):
        depth = start + k
        a_at = a_ptr + i[:, None] * stride_am + depth[None, :] * stride_ak
        b_at = b_ptr + depth[:, None] * stride_bk + j[None, :] * stride_bn
        a = tl.load(a_at, mask=(i[:, None] < M) & (depth[None, :] < K), other=0)
        b = tl.load(b_at, mask=(depth[:, None] < K) & (j[None, :] < N), other=0)
        total = tl.dot(a, b, total, input_precision=PRECISION, out_dtype=out_type)
    tl.store(c_ptr + i[:, None] * N + j[None, :], total, mask=(i[:, None] < M) & (j[None, :] < N))


@triton.jit
def masked_sums(x_ptr, row_ptr, column_ptr, total_ptr, tiles_ptr, M, N, stride, BM: tl.constexpr, BN: tl.constexpr):
    """Sums over the entries that are not NaN; a tile without any is skipped, `tiles` counts the others."""
    m = tl.program_id(0) * BM + tl.arange(0, BM)
    rows = tl.zeros([BM], tl.float32)
    tiles = 0
    for start in range(0, N, BN):
        n = start + tl.arange(0, BN)
        inside = (m[:, None] < M) & (n[None, :] < N)
        x = tl.load(x_ptr + m.to(tl.int64)[:, None] * stride + n[None, :], mask=inside, other=float("nan"))
        x = x.to(tl.float32)
        observed = x == x
        if tl.max(tl.max(observed.to(tl.int32), 1), 0) > 0:
            kept = tl.where(observed, x, 0)
            rows += tl.sum(kept, 1)
            tl.atomic_add(column_ptr + n, tl.sum(kept, 0), mask=n < N, sem="relaxed")
            tiles += 1
    tl.store(row_ptr + m, rows, mask=m < M)
    tl.atomic_add(total_ptr, tl.sum(rows.to(tl.float64), 0), sem="relaxed")
    tl.atomic_add(tiles_ptr, tiles, sem="relaxed")


@functools.cache
def _compiled(kernel, target: int, types: tuple, constants: tuple, aligned: tuple, num_warps: int, num_stages: int):
    attributes = {(kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in aligned}
    source = ASTSource(kernel, dict(types), dict(constants), attributes)
    options = {"num_warps": num_warps, "num_stages": num_stages, "enable_fp_fusion": True}
    return triton.compile(source, target=GPUTarget("cuda", target, 32), options=options)


class Build:
    """A kernel compiled for arguments like those given; `execute` runs it, or a changed text of it."""

    def __init__(
        self, kernel: Any, args: list, constants: dict[str, Any], target=80, num_warps=4, num_stages=2
    ) -> None:
        names = [name for name in kernel.arg_names if name not in constants]
        types = {n: TYPES[a.dtype] if isinstance(a, torch.Tensor) else "i32" for n, a in zip(names, args, strict=True)}
        types |= dict.fromkeys(constants, "constexpr")
        values = zip(names, (a.data_ptr() if isinstance(a, torch.Tensor) else a for a in args), strict=True)
        aligned = tuple(name for name, value in values if value % 16 == 0)
        types = tuple((name, types[name]) for name in kernel.arg_names)
        compiled = _compiled(kernel, target, types, tuple(constants.items()), aligned, num_warps, num_stages)
        self.ptx, self.shared, self.num_warps = compiled.asm["ptx"], compiled.metadata.shared, num_warps

    def execute(self, grid: tuple[int, ...], args: list, ptx: str | None = None, **options) -> Report:
        return run(ptx or self.ptx, None, grid, self.num_warps, self.shared, args, **options)
