"""Compiled Triton kernels executed on the CPU against PyTorch: right results, no races, nothing out of bounds."""

from __future__ import annotations

import pytest
import torch

from .triton_kernels import Build, add, masked_sums, matmul

TARGETS = [80, 120]
# Relative error of a product, per precision: an operand read as tf32 loses up to 2**-10 of itself; three products of
# split operands lose the product of two low parts.
UNIT = {"ieee": 2.0**-23, "tf32": 2.0**-9, "tf32x3": 2.0**-19, "bf16x3": 2.0**-15}


def blank(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.full(shape, float("nan"), dtype=dtype)


@pytest.mark.parametrize("n", [1, 127, 128, 1000])
def test_add(n):
    x, y, out = torch.randn(n), torch.randn(n), blank(n)
    args = [x, y, out, n]
    report = Build(add, args, {"BLOCK": 256}).execute((-(-n // 256),), args)
    assert report.races == []
    assert torch.equal(out, x + y)


def assert_product(a, b, precision, target, num_stages, tile=(32, 32, 16), num_warps=4):
    m, k, n = a.shape[0], a.shape[1], b.shape[1]
    c = blank(m, n, dtype=torch.float64 if a.dtype == torch.float64 else torch.float32)
    args = [a, b, c, m, n, k, *a.stride(), *b.stride()]
    constants = dict(zip(("BM", "BN", "BK"), tile, strict=True)) | {"PRECISION": precision}
    build = Build(matmul, args, constants, target, num_warps, num_stages)
    report = build.execute((-(-m // tile[0]), -(-n // tile[1])), args)
    assert report.races == []
    unit = UNIT[precision] if a.dtype == torch.float32 else 2.0**-52 if a.dtype == torch.float64 else 0
    accumulation = k * (2.0**-53 if a.dtype == torch.float64 else 2.0**-24)
    bound = (unit + accumulation) * (a.double().abs() @ b.double().abs())
    error = (c.double() - a.double() @ b.double()).abs()
    assert (error <= bound).all(), f"{error.max():.2e} where {bound.max():.2e} is allowed"
    return build, error


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("precision", UNIT)
def test_products_in_each_precision(precision, target):
    torch.manual_seed(0)
    a, b = torch.randn(45, 52), torch.randn(52, 40)
    build, error = assert_product(a, b, precision, target, num_stages=1)
    exact = (a.double() @ b.double()).square().mean().sqrt()
    rms = error.square().mean().sqrt() / exact
    # Neither better than the precision allows (it would not be that precision's code) nor far from its usual error.
    low, high = {"ieee": (1e-9, 3e-7), "tf32": (1e-4, 2e-3), "tf32x3": (1e-9, 5e-7), "bf16x3": (5e-7, 1e-5)}[precision]
    assert low < rms < high
    assert ("mma.sync" in build.ptx) == (precision != "ieee")


@pytest.mark.parametrize("num_stages", [2, 3])
def test_pipelined_products_wait_for_their_copies(num_stages):
    torch.manual_seed(1)
    a, b = torch.randn(40, 128), torch.randn(128, 64)
    build, _ = assert_product(a, b, "tf32", 80, num_stages)
    assert "cp.async.wait_group" in build.ptx


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("transposed", [False, True])
def test_products_of_other_types_and_layouts(dtype, transposed):
    torch.manual_seed(2)
    a, b = torch.randn(37, 48, dtype=dtype), torch.randn(48, 64, dtype=dtype)
    if transposed:
        a, b = a.T.contiguous().T, b.T.contiguous().T
    tile = (32, 32, 16) if dtype == torch.float64 else (32, 64, 32)
    build, _ = assert_product(a, b, "ieee", 80, num_stages=2, tile=tile)
    kind = {torch.float16: "f16", torch.bfloat16: "bf16", torch.float64: "f64"}[dtype]
    assert f".{kind}.{kind}." in build.ptx


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_masked_sums_skip_tiles_without_an_entry(target, dtype):
    """NaN outside the mask and in the gaps between rows; rows 2**30 elements apart, so that offsets pass 2**31."""
    torch.manual_seed(3)
    m, n, stride = 37, 150, 2**27
    x = torch.empty_strided((m, n), (stride, 1), dtype=dtype)  # pages never touched take no memory
    x.copy_(torch.randn(m, n).masked_fill_(torch.rand(m, n) < 0.7, float("nan")))
    x[:, 32:96] = float("nan")
    row, column = blank(m), torch.zeros(n)
    total, tiles = torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.int32)
    args = [x, row, column, total, tiles, m, n, stride]
    build = Build(masked_sums, args, {"BM": 32, "BN": 32}, target)
    report = build.execute((2,), args)
    assert report.races == []
    kept = x.double().nan_to_num(nan=0)
    torch.testing.assert_close(row.double(), kept.sum(1), rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(column.double(), kept.sum(0), rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(total, kept.sum()[None], rtol=1e-6, atol=1e-4)
    observed = x == x
    expected = sum(bool(observed[i : i + 32, j : j + 32].any()) for i in (0, 32) for j in range(0, n, 32))
    assert tiles.item() == expected


def test_blocks_in_another_order_change_only_the_rounding_of_atomics():
    torch.manual_seed(4)
    x = torch.randn(96, 40)
    results = []
    for order in (None, [2, 0, 1]):
        row, column = blank(96), torch.zeros(40)
        total, tiles = torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.int32)
        args = [x, row, column, total, tiles, 96, 40, 40]
        Build(masked_sums, args, {"BM": 32, "BN": 32}).execute((3,), args, order=order)
        results.append((row, column))
    assert torch.equal(results[0][0], results[1][0])
    assert not torch.equal(results[0][1], results[1][1])
    torch.testing.assert_close(results[0][1], results[1][1])
