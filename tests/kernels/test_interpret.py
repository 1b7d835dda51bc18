"""The fused kernel in Triton's interpreter against the float64 oracle, over everything that a caller may pass."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernels import mf_loss, mf_loss_and_grads, mf_sse
from reference import oracle_loss_and_grads

pytest.importorskip("triton", reason="Triton is not installed")
pytestmark = pytest.mark.interpret

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
RATINGS = (*FLOATS, torch.uint8, torch.int8)
SIGNED, UNSIGNED = (torch.int8, torch.int16, torch.int32, torch.int64), (torch.uint8, torch.uint16, torch.uint32)
MASKS = (None, torch.bool, *SIGNED, *UNSIGNED, *FLOATS)
OUTPUTS = ("user_factors", "item_factors", "user_bias", "item_bias", "global_bias")


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """Memory that nothing has written holds NaN."""

    def filled(allocate):
        def allocated(*args, **kwargs):
            memory = allocate(*args, **kwargs)
            return memory.fill_(float("nan")) if memory.is_floating_point() else memory

        return allocated

    monkeypatch.setattr(torch.Tensor, "new_empty", filled(torch.Tensor.new_empty))
    monkeypatch.setattr(torch, "empty_like", filled(torch.empty_like))


def assert_close(result, expected, tolerance):
    """Every output within `tolerance` of the rms of the exact one; NaN nowhere unless expected there."""
    loss, grads = result
    exact_loss, exact_grads = expected
    assert loss.dtype == torch.float64
    np.testing.assert_allclose(loss.item(), exact_loss, rtol=tolerance)
    for name, grad, exact in zip(OUTPUTS, grads, exact_grads, strict=True):
        assert tuple(grad.shape) == exact.shape, name
        rms = np.sqrt(np.mean(np.square(exact)))
        np.testing.assert_allclose(grad.double().numpy(), exact, rtol=0, atol=tolerance * rms, err_msg=name)


DENSE = ("contiguous", "transposed", "every second")
REPEATED = ("row repeated", "column repeated")  # stride 0


def in_layout(values, layout):
    """The values, or one row or column of them repeated, with other strides."""
    if layout == "transposed":
        return values.T.contiguous().T
    if layout == "every second":
        wide = values.new_zeros(2 * values.shape[0], 3 * values.shape[1])
        wide[::2, ::3] = values
        return wide[::2, ::3]
    if layout == "row repeated":
        return values[:1].expand_as(values)
    if layout == "column repeated":
        return values[:, :1].expand_as(values)
    return values


def poison(ratings, observed):
    """Unobserved places filled with NaN and infinities in turn."""
    bad = torch.tensor([float("nan"), float("inf"), -float("inf")])[torch.arange(ratings.numel()) % 3]
    return torch.where(observed, ratings, bad.reshape(ratings.shape).to(ratings))


@st.composite
def problems(draw, dtype=torch.float64):
    """Arguments of the step: any sizes, strides and dtypes; unobserved places of float ratings hold NaN and Inf."""
    m, n = draw(st.integers(1, 140)), draw(st.integers(1, 140))
    rank = draw(st.sampled_from([1, 2, 13, 14, 15, 16, 29, 30, 31, 62, 63, 64, 65, 100, 127, 128, 130]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))

    observed = torch.rand(m, n, generator=generator) < draw(st.sampled_from([0.0, 0.02, 0.5, 0.9, 1.0]))
    if draw(st.booleans()):  # users and items without any rating, and a user with all
        observed[: m // 3], observed[:, : n // 4], observed[-1] = False, False, True
    ratings = torch.randint(0, 100, (m, n), generator=generator).to(draw(st.sampled_from(RATINGS)))
    layout = draw(st.sampled_from(DENSE + REPEATED))
    mask_dtype = draw(st.sampled_from(MASKS))
    if mask_dtype is None:
        mask = None
        if ratings.is_floating_point():
            ratings = ratings.masked_fill(~observed, float("nan"))
    else:
        weight = 1 if mask_dtype in (torch.bool, torch.uint16, torch.uint32) else draw(st.sampled_from([1, 2, 127]))
        mask = (observed.to(torch.int8) * weight).to(mask_dtype)
        if mask_dtype in FLOATS:
            mask = mask.masked_fill(~observed, -0.0)
        mask = in_layout(mask, draw(st.sampled_from(DENSE + REPEATED)))
        if ratings.is_floating_point() and layout in DENSE:
            ratings = poison(ratings, mask != 0)
    ratings = in_layout(ratings, layout)

    def normal(*shape, scale=1.0):
        return (scale * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)

    column = draw(st.sampled_from([(), (1,)]))
    parameters = (
        in_layout(normal(m, rank), draw(st.sampled_from(DENSE))), normal(n, rank),
        normal(m, *column, scale=5), normal(n, *column, scale=3), normal(*column, scale=10),
    )  # fmt: skip
    return (*parameters, ratings, mask), draw(st.sampled_from([0.0, 0.1, 2.5]))


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(problems(), st.booleans())
def test_float64_is_exact(problem, deterministic):
    """The same kernel in float64: what remains is the formula, the masking and the addressing."""
    arguments, reg = problem
    result = mf_loss_and_grads(*arguments, reg=reg, backend="interpret", deterministic=deterministic)
    expected = oracle_loss_and_grads(*arguments, reg=reg)
    assert_close(result, expected, 1e-11)
    sse = mf_sse(*arguments, backend="interpret", deterministic=deterministic)
    np.testing.assert_allclose(sse.item(), oracle_loss_and_grads(*arguments, reg=0.0)[0], rtol=1e-12)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(problems(torch.float32), st.booleans(), st.sampled_from(["ieee", "tf32x3", "bf16x3", "tf32"]))
def test_float32(problem, deterministic, precision):
    arguments, reg = problem
    options = {"reg": reg, "deterministic": deterministic, "precision": precision}
    result = mf_loss_and_grads(*arguments, **options, backend="interpret")
    assert all(grad.dtype == torch.float32 for grad in result[1])
    assert_close(result, oracle_loss_and_grads(*arguments, reg=reg), 1e-4)


def drawn(m, n, rank, dtype=torch.float32, seed=0):
    """A plain problem without a mask: a third of the ratings is missing."""
    generator = torch.Generator().manual_seed(seed)
    shapes = (m, rank), (n, rank), (m, 1), (n, 1), (1,)
    parameters = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
    ratings = torch.rand(m, n, generator=generator) * 5
    return *parameters, ratings.masked_fill(torch.rand(m, n, generator=generator) < 1 / 3, float("nan"))


def test_observed_nan_reaches_the_loss_and_its_own_gradients():
    *parameters, ratings = drawn(130, 90, 7)
    mask = ~ratings.isnan()
    ratings[100, 70], mask[100, 70] = float("nan"), True
    loss, grads = mf_loss_and_grads(*parameters, ratings, mask, backend="interpret")
    assert loss.isnan()
    for grad, places in zip(grads, ([100], [70], [100], [70], [0]), strict=True):
        nan = grad.isnan().reshape(len(grad), -1)
        assert nan[places].all()
        assert nan.sum() == nan[places].numel()


def test_nan_parameter_reaches_the_loss():
    *parameters, ratings = drawn(70, 90, 7)
    parameters[2][69] = float("nan")
    assert mf_loss_and_grads(*parameters, ratings, backend="interpret")[0].isnan()


def test_autograd_gives_the_same_gradients():
    *parameters, ratings = drawn(65, 70, 9, torch.float64)
    parameters = [parameter.requires_grad_() for parameter in parameters]
    (3 * mf_loss(*parameters, ratings, backend="interpret")).backward()
    _, expected = oracle_loss_and_grads(*parameters, ratings)
    for parameter, exact in zip(parameters, expected, strict=True):
        np.testing.assert_allclose(parameter.grad.numpy(), 3 * exact, rtol=1e-10)


def run_in_order(monkeypatch, order, *arguments, **keywords):
    """One step with the programs of each launch executed in another order."""
    from triton.runtime.interpreter import interpreter_builder

    set_index, set_size = interpreter_builder.set_grid_idx, interpreter_builder.set_grid_dim
    shuffled = {}

    def permute(x, y, z):
        shuffled.clear()
        programs = [(i, j, k) for i in range(x) for j in range(y) for k in range(z)]
        shuffled.update(zip(programs, order(programs), strict=True))
        set_size(x, y, z)

    with monkeypatch.context() as patch:
        patch.setattr(interpreter_builder, "set_grid_dim", permute)
        patch.setattr(interpreter_builder, "set_grid_idx", lambda *at: set_index(*shuffled[at]))
        loss, grads = mf_loss_and_grads(*arguments, backend="interpret", **keywords)
    return [loss, *grads]


@pytest.mark.parametrize("rank", [30, 128], ids=["columns", "sums"])
def test_deterministic_whatever_the_order_of_programs(monkeypatch, rank):
    orders = (list, lambda programs: programs[::-1], lambda programs: programs[1::2] + programs[::2])
    problem = drawn(700, 300, rank)
    exact = [run_in_order(monkeypatch, order, *problem, deterministic=True) for order in orders]
    fast = [run_in_order(monkeypatch, order, *problem) for order in orders]
    assert all(torch.equal(a, b) for other in exact[1:] for a, b in zip(exact[0], other, strict=True))
    assert not all(torch.equal(a, b) for other in fast[1:] for a, b in zip(fast[0], other, strict=True))


def test_leaves_triton_as_it_was():
    import triton.language as tl

    def state():
        scopes = (tl, tl.core, tl.math, tl.tensor, tl.dtype)
        return [(name, value) for scope in scopes for name, value in vars(scope).items()]

    from kernels.gpu import fused

    before, names = state(), set(vars(fused))
    mf_loss_and_grads(*drawn(20, 20, 3), backend="interpret")
    after = state()
    assert [name for name, _ in before] == [name for name, _ in after]
    assert all(old is new for (_, old), (_, new) in zip(before, after, strict=True))
    assert set(vars(fused)) == names


def test_kernels_does_not_import_triton():
    code = """
        import sys, torch, kernels
        square, line = torch.ones(2, 2), torch.ones(2)
        kernels.mf_loss(square, square, line, line, torch.ones(1), square, backend="torch")
        sys.exit("triton" in sys.modules)
    """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(code)]).returncode == 0
