"""Every bad argument gets one error that names it, what came and what was expected."""

from __future__ import annotations

import math
import re

import pytest
import torch

from kernels import mf_loss, mf_loss_and_grads, mf_sse
from kernels.problem import squared_norms
from tests.problems import checked, draw_inputs

M, N, RANK = 5, 7, 3
INPUTS = draw_inputs(M, N, RANK)
GOOD = INPUTS._asdict()
FLOAT, DOUBLE = torch.float32, torch.float64

# argument, a bad value for it, the error, and what its message says came and was expected
SHAPES = [
    ("user_factors", torch.rand(M), "(5,)", "2 dimensions"),
    ("user_factors", torch.rand(M, RANK, 1), "(5, 3, 1)", "2 dimensions"),
    ("item_factors", torch.tensor(1.0), "()", "2 dimensions"),
    ("item_factors", torch.rand(N, RANK + 1), "(7, 4)", "(7, 3)"),
    ("item_factors", torch.rand(RANK, N).T[:, :2], "(7, 2)", "(7, 3)"),
    ("user_bias", torch.rand(M + 1), "(6,)", "(5,) or (5, 1)"),
    ("user_bias", torch.rand(1, M), "(1, 5)", "(5,) or (5, 1)"),
    ("user_bias", torch.rand(M, 1, 1), "(5, 1, 1)", "(5,) or (5, 1)"),
    ("item_bias", torch.rand(()), "()", "(7,) or (7, 1)"),
    ("item_bias", torch.rand(1, N), "(1, 7)", "(7,) or (7, 1)"),
    ("global_bias", torch.rand(2), "(2,)", "() or (1,)"),
    ("global_bias", torch.rand(1, 1), "(1, 1)", "() or (1,)"),
    ("global_bias", torch.rand(0), "(0,)", "() or (1,)"),
    ("ratings", torch.rand(N, M), "(7, 5)", "(5, 7)"),
    ("ratings", torch.rand(M, N + 1), "(5, 8)", "(5, 7)"),
    ("ratings", torch.rand(M * N), "(35,)", "(5, 7)"),
    ("ratings", torch.rand(1, N), "(1, 7)", "(5, 7)"),  # never broadcast
    ("mask", torch.ones(M, 1), "(5, 1)", "(5, 7)"),
    ("mask", torch.ones(M, N, 1), "(5, 7, 1)", "(5, 7)"),
    ("mask", torch.ones(0, N), "(0, 7)", "(5, 7)"),
]
DEVICES = [
    (name, GOOD[name].to("meta"), "meta", "cpu as user_factors")
    for name in ("item_factors", "user_bias", "item_bias", "global_bias", "ratings", "mask")
]
DTYPES = [
    *[("user_factors", torch.ones(M, RANK, dtype=dtype), str(dtype), "float32 or float64")
      for dtype in (torch.float16, torch.bfloat16, torch.int64, torch.complex64, torch.bool)],
    ("item_factors", torch.rand(N, RANK, dtype=DOUBLE), "torch.float64", "torch.float32 as user_factors"),
    ("user_bias", torch.ones(M, dtype=torch.int32), "torch.int32", "torch.float32 as user_factors"),
    ("item_bias", torch.rand(N, dtype=torch.bfloat16), "torch.bfloat16", "torch.float32 as user_factors"),
    ("global_bias", torch.rand((), dtype=DOUBLE), "torch.float64", "torch.float32 as user_factors"),
    *[("ratings", torch.ones(M, N, dtype=dtype), str(dtype), "float16, uint8, int8, int32, int64")
      for dtype in (torch.int16, torch.bool, torch.complex64, torch.uint16)],
    ("mask", torch.ones(M, N, dtype=torch.complex64), "torch.complex64", "bool, an integer or a float"),
]  # fmt: skip
NOT_TENSORS = [
    ("user_factors", GOOD["user_factors"].numpy(), "ndarray", "torch.Tensor"),
    ("item_factors", None, "NoneType", "torch.Tensor"),
    ("user_bias", [0.0] * M, "list", "torch.Tensor"),
    ("item_bias", "zeros", "str", "torch.Tensor"),
    ("global_bias", 3.5, "float", "torch.Tensor"),
    ("ratings", [[1.0] * N] * M, "list", "torch.Tensor"),
    ("mask", [[1] * N] * M, "list", "torch.Tensor"),
    ("ratings", GOOD["mask"].float().to_sparse(), "torch.sparse_coo", "dense tensor"),
    ("mask", GOOD["mask"].to_sparse(), "torch.sparse_coo", "dense tensor"),
    ("ratings", torch.rand(M, N, dtype=torch.complex64).conj().imag, "lazily negated", "dense tensor"),
]
REGS = [
    (TypeError, "0.1"), (TypeError, None), (TypeError, 1j), (TypeError, torch.tensor(0.1)),
    (ValueError, float("nan")), (ValueError, float("inf")), (ValueError, -float("inf")),
    (ValueError, 10**400),
]  # fmt: skip
BAD = [
    *[(name, value, ValueError, came, expected) for name, value, came, expected in SHAPES + DEVICES],
    *[(name, value, TypeError, came, expected) for name, value, came, expected in DTYPES + NOT_TENSORS],
    *[("reg", value, error, repr(value), "finite number") for error, value in REGS],
]


CASES = [
    pytest.param(function, *bad, id=f"{function.__name__}-{bad[0]}-{bad[3]}")
    for function in (mf_loss, mf_loss_and_grads, mf_sse)
    for bad in BAD
    if (function, bad[0]) != (mf_sse, "reg")  # it has none
]


@pytest.mark.parametrize(("function", "name", "value", "error", "came", "expected"), CASES)
def test_bad_argument_is_named(function, name, value, error, came, expected):
    arguments = GOOD | {name: value}
    if function is mf_sse:
        del arguments["reg"]
    with pytest.raises(error, match=f"^{name}: expected .*{re.escape(expected)}.*, got .*{re.escape(came)}"):
        function(**arguments)


@pytest.mark.parametrize("reg", [0, 0.1, -2.5, True, 1e30])
def test_any_finite_number_weighs_the_norms(reg):
    loss, sse = mf_loss(**GOOD | {"reg": reg}), mf_sse(*INPUTS[:7])
    norms = sum(parameter.double().square().sum() for parameter in INPUTS[:4])
    assert loss.item() == pytest.approx((sse + reg * norms).item(), rel=1e-12)


def test_squared_norms_are_summed_in_float64():
    problem = checked(draw_inputs(1 << 14, 3, 2))
    exact = math.fsum(x * x for parameter in problem.parameters[:4] for x in parameter.reshape(-1).tolist())
    assert squared_norms(problem.parameters[:4]).item() == pytest.approx(exact, rel=1e-13)


def test_a_checked_problem_holds_the_arguments_themselves():
    problem = checked(INPUTS)
    assert problem.shape == (M, N, RANK)
    held = (*problem.parameters, *problem.observations[:2], problem.reg)
    for value, given in zip(held, INPUTS, strict=True):
        assert value is given
