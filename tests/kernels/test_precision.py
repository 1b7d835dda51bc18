"""The error of one product in each precision: within the bound derived in docs/kernel.md, and close to it.

Operands are packed by the PTX of `prepare`, executed on the CPU. What a matrix unit does to them is emulated here,
since Triton's interpreter computes in full float32.
"""

import pytest
import torch

from kernels import aot, backends, mf_loss, mf_loss_and_grads, mf_sse
from kernels.gpu.config import ARITHMETIC, TARGETS
from kernels.precision import full_float32, resolve_precision
from kernels.problem import Observations, check_problem
from mfbench.correctness.gate import standard
from mfbench.results.environment import product_precisions
from reference import autograd_loss_and_grads
from tests.problems import draw_inputs
from tests.ptx.steps import PRODUCT_ERROR, execute_launch

pytest.importorskip("triton", reason="Triton is not installed")
from kernels.gpu.plan import plan_launches

COLUMNS = 64

# Derived: what the roundings of one product add up to at worst; above it lies the bound that the tests use.
DERIVED = {"tf32": 2**-10 + 2**-11, "tf32x3": 2 * 2**-22 + 2**-22, "bf16x3": 2 * 2**-17 + 2**-16}


def in_hardware(values, precision):
    """Return an operand as the matrix unit reads it: tf32 truncates 13 bits, bfloat16 is exact."""
    if not precision.startswith("tf32"):
        return values.double()
    return (values.view(torch.int32) & (-1 << 13)).view(torch.float32).double()


def packed(values, precision):
    """Return the parts of a factor with these values: the rounded ones, or high and low halves."""
    P = values.reshape(-1, COLUMNS)
    Q, bu, bi, mu = (torch.zeros(shape) for shape in ((16, COLUMNS), len(P), 16, ()))
    problem = check_problem((P, Q, bu, bi, mu), Observations(torch.zeros(len(P), 16)), 0.1)
    prepare, *_ = plan_launches(problem, TARGETS["sm_80"], precision, False, gradients=True).calls
    assert execute_launch(aot._launch(prepare, TARGETS["sm_80"])) == []
    return list(prepare.arguments["a_ptr"].reshape(-1, len(values)))


def pieces(values, precision):
    """Return the parts of a factor or of a split error, as the unit reads them: one, or high and low."""
    return [in_hardware(part, precision) for part in packed(values, precision)]


def product(x, y, precision):
    """Return the exact sum of all products but that of the low parts. x: factors, y: errors."""
    factors = pieces(x, precision)
    errors = pieces(y, precision) if ARITHMETIC[precision].split else [in_hardware(y, precision)]
    return sum(a * b for i, a in enumerate(factors) for j, b in enumerate(errors) if i + j < 2)


def operands(count, seed):
    """Return operands with random mantissas, and with mantissas at the edges of rounding."""
    generator = torch.Generator().manual_seed(seed)
    bits = torch.randint(0, 1 << 23, (count,), generator=generator, dtype=torch.int32)
    edges = torch.tensor([0, 1, (1 << 12) - 1, 1 << 12, (1 << 13) - 1, (1 << 15) + 1, (1 << 16) - 1, (1 << 23) - 1])
    bits[: len(edges) ** 2] = edges.repeat(len(edges)).int()
    exponents = torch.randint(117, 137, (count,), generator=generator, dtype=torch.int32)
    return (exponents << 23 | bits).view(torch.float32)


@pytest.mark.parametrize("precision", DERIVED)
def test_the_error_of_a_product(precision):
    x, y = operands(1 << 16, 1), operands(1 << 16, 2).flip(0)
    exact = x.double() * y.double()
    worst = ((product(x, y, precision) - exact) / exact).abs().max().item()
    assert DERIVED[precision] / 4 < worst <= DERIVED[precision] <= PRODUCT_ERROR[precision]


@pytest.mark.parametrize("precision", ["tf32x3", "bf16x3"])
def test_the_halves_of_a_factor_are_the_factor(precision):
    x = operands(1 << 16, 3)
    high, low = (part.double() for part in packed(x, precision))
    lost = {"tf32x3": 0, "bf16x3": 2**-17}[precision]
    assert ((high + low - x.double()) / x).abs().max().item() <= lost


def test_factors_in_tf32_are_rounded_not_cut():
    x = operands(1 << 16, 4)
    (rounded,) = pieces(x, "tf32")
    errors = (rounded - x.double()) / x.double()
    assert errors.abs().max().item() <= 2**-11
    assert abs(errors.mean().item()) < 2**-15  # cut ones would lie 2**-11.4 too low


# ------------------------------------------------------------------ PyTorch's switches


def set_switch(module, value):
    module.fp32_precision = value


@pytest.mark.usefixtures("switches")
@pytest.mark.parametrize(
    ("switch", "precision"),
    [
        (lambda: set_switch(torch.backends.cuda.matmul, "tf32"), "tf32"),
        (lambda: set_switch(torch.backends.cuda.matmul, "ieee"), "ieee"),
        (lambda: set_switch(torch.backends.mkldnn.matmul, "bf16"), "ieee"),
        (lambda: set_switch(torch.backends.mkldnn.matmul, "tf32"), "ieee"),
        (lambda: set_switch(torch.backends, "tf32"), "tf32"),
        (lambda: set_switch(torch.backends, "bf16"), "ieee"),
        (lambda: set_switch(torch.backends.mkldnn, "bf16"), "ieee"),
        (lambda: set_switch(torch.backends.cudnn.conv, "tf32"), "ieee"),
        (lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True), "bf16x3"),
        (lambda: setattr(torch.backends.cuda.matmul, "allow_bf16_reduced_precision_reduction", True), "ieee"),
        (lambda: torch.set_float32_matmul_precision("high"), "bf16x3"),
        (lambda: torch.set_float32_matmul_precision("medium"), "tf32"),
        (lambda: (torch.set_float32_matmul_precision("high"), set_switch(torch.backends.cuda.matmul, "ieee")), "ieee"),
    ],
)
def test_either_switch_decides(switch, precision):
    inputs = draw_inputs(5, 7, 3)
    expected = mf_loss(*inputs), mf_sse(*inputs[:7])
    switch()
    assert resolve_precision(None) == precision
    assert (mf_loss(*inputs), mf_sse(*inputs[:7])) == expected
    assert torch.compile(mf_loss, backend="aot_eager", fullgraph=True)(*inputs) == expected[0]


@pytest.mark.usefixtures("switches")
@pytest.mark.parametrize("setting", ["high", "medium"])
def test_cpu_products_are_in_full_precision_whatever_is_set(monkeypatch, setting):
    torch.set_float32_matmul_precision(setting)
    before = product_precisions()
    assert before["cpu"] == {"high": "tf32", "medium": "bf16"}[setting]
    seen = []
    addmm = torch.addmm
    monkeypatch.setattr(torch, "addmm", lambda *args: seen.append(product_precisions()["cpu"]) or addmm(*args))
    mf_loss(*draw_inputs(5, 7, 3), backend="torch")
    assert seen == ["ieee"]
    assert product_precisions() == before
    assert torch.get_float32_matmul_precision() == setting


@pytest.mark.usefixtures("switches")
@pytest.mark.parametrize("module", [torch.backends.mkldnn.matmul, torch.backends.mkldnn, torch.backends])
def test_bounds_come_from_full_precision_whatever_is_set(monkeypatch, module):
    """Eager PyTorch with bfloat16 products where a switch allows them stands in for a CPU with AMX."""
    inputs = draw_inputs(64, 48, 32, columns=True)
    expected = standard(inputs).bounds

    def coarse(*arguments):
        if product_precisions()["cpu"] == "bf16":
            arguments = [value.bfloat16().float() for value in arguments[:2]] + list(arguments[2:])
        return autograd_loss_and_grads(*arguments)

    monkeypatch.setattr("mfbench.correctness.gate.autograd_loss_and_grads", coarse)
    set_switch(module, "bf16")
    assert coarse(*inputs)[0] != autograd_loss_and_grads(*inputs)[0]
    assert standard(inputs).bounds == expected


@pytest.mark.usefixtures("switches")
def test_an_inherited_switch_is_inherited_again():
    torch.backends.fp32_precision = "bf16"
    with full_float32("cpu"):
        assert product_precisions()["cpu"] == "ieee"
    assert product_precisions()["cpu"] == "bf16"
    torch.backends.fp32_precision = "none"
    assert product_precisions()["cpu"] == "ieee"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_bounds_come_from_full_precision_under_autocast_too(dtype):
    """As in a test of a model in mixed precision, or under a fixture that turns it on for all tests."""
    inputs = draw_inputs(64, 48, 32, columns=True)
    expected = standard(inputs)
    with torch.autocast("cpu", dtype):
        found = standard(inputs)
    assert found.bounds == expected.bounds
    assert found.rms_bounds == expected.rms_bounds


def test_a_step_in_half_precision_does_not_pass_under_autocast():
    inputs = draw_inputs(64, 48, 32, columns=True)
    with torch.autocast("cpu", torch.bfloat16):
        loss, grads = autograd_loss_and_grads(*inputs)
        checks = standard(inputs).judge([value.double().numpy() for value in (loss, *grads)])
    assert not checks["user_factors"].ok


@pytest.mark.parametrize("backend", [name for name in ("native", "torch", "interpret") if backends()[name].available])
@pytest.mark.parametrize("mask_dtype", [torch.bool, torch.float32])
def test_deterministic_algorithms_change_no_result(backend, mask_dtype):
    """They also fill new memory with NaN, so that an output never written would show."""
    inputs = draw_inputs(37, 53, 5, mask_dtype=mask_dtype)
    expected = mf_loss_and_grads(*inputs, backend=backend, deterministic=True)
    torch.use_deterministic_algorithms(True)
    try:
        got = [mf_loss_and_grads(*inputs, backend=backend) for _ in range(2)]
    finally:
        torch.use_deterministic_algorithms(False)
    for loss, grads in got:
        assert loss == expected[0]
        assert all(map(torch.equal, grads, expected[1]))
