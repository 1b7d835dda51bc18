"""The fused kernel in Triton's interpreter against the float64 oracle, for everything that a caller may pass."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernels import encode_ratings, mf_loss, mf_loss_and_grads, mf_sse
from kernels.precision import PRECISIONS
from reference import oracle_loss_and_grads
from tests.problems import assert_right, draw_inputs, problems

pytest.importorskip("triton", reason="Triton is not installed")
pytestmark = [pytest.mark.interpret, pytest.mark.usefixtures("poisoned")]

RANKS = (1, 2, 13, 14, 15, 16, 29, 30, 31, 62, 63, 64, 65, 100, 127, 128, 129, 300)


def assert_exact(inputs, result, tolerance=1e-11):
    """Check every output to within `tolerance` times the rms of the oracle's."""
    loss, grads = result
    exact_loss, exact_grads = oracle_loss_and_grads(*inputs)
    np.testing.assert_allclose(loss.item(), exact_loss, rtol=tolerance)
    for grad, exact in zip(grads, exact_grads, strict=True):
        rms = np.sqrt(np.mean(np.square(exact)))
        np.testing.assert_allclose(grad.numpy(), exact, rtol=0, atol=tolerance * rms)


@given(problems(max_size=140, max_rank=40, dtypes=(torch.float64,)), st.booleans())
def test_float64_is_exact(inputs, deterministic):
    """Without rounding of reduced precision, this tests formula, masking and addressing."""
    options = {"backend": "interpret", "deterministic": deterministic}
    assert_exact(inputs, mf_loss_and_grads(*inputs, **options))
    sse = mf_sse(*inputs[:7], **options)
    np.testing.assert_allclose(sse.item(), oracle_loss_and_grads(*inputs[:7], reg=0.0)[0], rtol=1e-12)


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("deterministic", [False, True], ids=["fast", "deterministic"])
def test_every_width_of_the_factors(rank, deterministic):
    inputs = draw_inputs(67, 133, rank, dtype=torch.float64, seed=rank)
    assert_exact(inputs, mf_loss_and_grads(*inputs, backend="interpret", deterministic=deterministic))


@given(problems(max_size=140, max_rank=40, dtypes=(torch.float32,)), st.booleans(), st.sampled_from(PRECISIONS))
def test_float32(inputs, deterministic, precision):
    options = {"deterministic": deterministic, "precision": precision}
    assert_right(inputs, mf_loss_and_grads(*inputs, **options, backend="interpret"))


@given(st.data(), st.integers(1, 140), st.integers(1, 140), st.booleans())
def test_encoded_ratings(data, m, n, deterministic):
    """Whole numbers, so that every encoding holds them."""
    dtype = data.draw(st.sampled_from([torch.float64, torch.float32, torch.float16, torch.uint8, torch.int8]))
    names = ["uint8-code", "bfloat16-nan", "float32-nan"]
    names += [] if dtype.is_floating_point else [f"{str(dtype).removeprefix('torch.')}-bits"]
    seed = data.draw(st.integers(0, 2**31))
    inputs = draw_inputs(
        m, n, 5, torch.float64, torch.uint8, torch.bool, data.draw(st.sampled_from([0, 0.1, 0.9])), seed=seed
    )
    inputs = inputs._replace(ratings=inputs.ratings.to(dtype) - (0 if dtype == torch.uint8 else 3))
    encoded = encode_ratings(inputs.ratings, inputs.mask, data.draw(st.sampled_from(names)), layout="dense")
    options = {"reg": inputs.reg, "deterministic": deterministic}
    assert_exact(inputs, mf_loss_and_grads(*inputs[:5], encoded, **options, backend="interpret"))
    assert_exact(inputs, mf_loss_and_grads(*inputs[:5], encoded, **options, backend="torch"))


def drawn(m, n, rank, dtype=torch.float32, seed=0):
    """Return a plain problem without a mask, a third of its ratings missing."""
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
    """Run one step with the programs of each launch in a given order."""
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
    problem = drawn(330, 200, rank)
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
