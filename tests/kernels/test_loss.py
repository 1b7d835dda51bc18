"""The public functions as operators: autograd, torch.compile, options, and which backend runs."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from kernels import Backend, Grads, backends, encode_ratings, mf_loss, mf_loss_and_grads, mf_sse
from kernels.aot import plan_step
from kernels.backends import MODULES
from kernels.encoded import observations_of
from kernels.operators import loss_op, step_op
from kernels.precision import PRECISIONS
from kernels.problem import Observations
from reference import autograd_loss_and_grads, oracle_loss_and_grads
from tests.problems import LAYOUTS, assert_right, draw_inputs

ROOT = Path(__file__).parents[2]
REG = torch.tensor(0.1, dtype=torch.float64)  # as the operators take it
CPU_BACKENDS = [name for name in ("native", "torch", "interpret") if backends()[name].available]
QUICK_BACKENDS = [name for name in CPU_BACKENDS if name != "interpret"]
EACH = pytest.mark.parametrize("backend", CPU_BACKENDS)
EACH_QUICK = pytest.mark.parametrize("backend", QUICK_BACKENDS)


def with_grad(inputs):
    """Return the inputs with parameters that are leaves and require a gradient."""
    parameters = [parameter.detach().clone().requires_grad_() for parameter in inputs[:5]]
    return type(inputs)(*parameters, *inputs[5:])


def grads_of(inputs):
    return Grads(*(parameter.grad for parameter in inputs[:5]))


def flat(result):
    loss, grads = result
    return loss, *grads


def assert_same(first, second):
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


# ------------------------------------------------------------------ autograd


@EACH
@pytest.mark.parametrize("columns", [True, False])
def test_backward_gives_the_gradients_of_the_same_pass(backend, columns):
    inputs = with_grad(draw_inputs(33, 47, 6, columns=columns))
    loss = mf_loss(*inputs, backend=backend)
    loss.backward()
    assert_right(inputs, (loss.detach(), grads_of(inputs)))


@EACH_QUICK
def test_backward_scales_by_the_gradient_of_the_loss(backend):
    inputs = with_grad(draw_inputs(33, 47, 6, torch.float64))
    (torch.log(mf_loss(*inputs, backend=backend)) * 3).backward()  # 3 / loss
    loss, grads = oracle_loss_and_grads(*inputs)
    for grad, exact in zip(grads_of(inputs), grads, strict=True):
        torch.testing.assert_close(grad, torch.as_tensor(exact) * 3 / loss, rtol=1e-12, atol=1e-12)


@EACH_QUICK
def test_gradients_accumulate_over_several_passes(backend):
    inputs = with_grad(draw_inputs(33, 47, 6, torch.float64))
    held_out = inputs._replace(mask=~inputs.mask, ratings=inputs.ratings.nan_to_num(1.0, 2.0, 3.0))
    mf_loss(*inputs, backend=backend).backward()
    loss = mf_loss(*held_out, backend=backend)
    loss.backward(retain_graph=True)
    loss.backward()
    (_, first), (_, second) = oracle_loss_and_grads(*inputs), oracle_loss_and_grads(*held_out)
    for grad, a, b in zip(grads_of(inputs), first, second, strict=True):
        torch.testing.assert_close(grad, torch.as_tensor(a + 2 * b), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("wanted", range(5))
def test_only_what_requires_a_gradient_gets_one(wanted):
    inputs = draw_inputs(9, 11, 3)
    inputs[wanted].requires_grad_()
    mf_loss(*inputs).backward()
    _, expected = mf_loss_and_grads(*inputs)
    for number, parameter in enumerate(inputs[:5]):
        if number == wanted:
            torch.testing.assert_close(parameter.grad, expected[number], rtol=0, atol=0)
        else:
            assert parameter.grad is None


def test_gradients_flow_on_into_what_made_the_parameters():
    inputs = draw_inputs(9, 11, 3, torch.float64)
    whole = torch.randn(20, 3, dtype=torch.float64, requires_grad=True)
    loss = mf_loss(whole[:9] * 2, whole[9:], *inputs[2:])
    loss.backward()
    _, (dP, dQ, *_) = oracle_loss_and_grads(whole[:9] * 2, whole[9:], *inputs[2:])
    torch.testing.assert_close(whole.grad, torch.cat([2 * torch.as_tensor(dP), torch.as_tensor(dQ)]))


@EACH_QUICK
def test_gradcheck(backend):
    *parameters, ratings, mask, reg = with_grad(draw_inputs(5, 7, 3, torch.float64, torch.float64))
    assert torch.autograd.gradcheck(lambda *p: mf_loss(*p, ratings, mask, reg, backend=backend), parameters)


def test_second_derivative_is_refused():
    inputs = with_grad(draw_inputs(9, 11, 3))
    loss = mf_loss(*inputs)
    with pytest.raises(RuntimeError, match="mf_loss has first derivatives only"):
        torch.autograd.grad(loss, inputs[0], create_graph=True)


def test_a_gradient_of_the_ratings_is_refused():
    inputs = draw_inputs(9, 11, 3)
    inputs.ratings.requires_grad_()
    with pytest.raises(ValueError, match=r"^ratings: expected no requires_grad"):
        mf_loss(*inputs)


@EACH
def test_nothing_else_builds_a_graph(backend):
    inputs = with_grad(draw_inputs(9, 11, 3))
    inputs.ratings.requires_grad_()
    loss, *grads = flat(mf_loss_and_grads(*inputs, backend=backend))
    assert not any(value.requires_grad for value in (loss, *grads, mf_sse(*inputs[:7], backend=backend)))
    with torch.no_grad():
        without = mf_loss(*inputs._replace(ratings=inputs.ratings.detach()), backend=backend)
    assert not without.requires_grad
    torch.testing.assert_close(without, loss, rtol=1e-12, atol=0)


@EACH
def test_forward_only_sums_the_same_squared_errors(backend):
    inputs = draw_inputs(70, 90, 5, reg=0.3)
    full, _ = mf_loss_and_grads(*inputs, backend=backend)
    sse = mf_sse(*inputs[:7], backend=backend)
    assert (sse.shape, sse.dtype) == ((), torch.float64)
    norms = sum(parameter.double().square().sum() for parameter in inputs[:4])
    torch.testing.assert_close(sse + 0.3 * norms, full, rtol=1e-12, atol=0)
    assert_right(inputs._replace(reg=0.0), (sse, mf_loss_and_grads(*inputs[:7], reg=0.0, backend=backend)[1]))
    held_out = mf_sse(*inputs[:5], inputs.ratings.nan_to_num(1, 2, 3), ~inputs.mask, backend=backend)
    everywhere = mf_sse(*inputs[:5], inputs.ratings.nan_to_num(1, 2, 3), torch.ones(70, 90), backend=backend)
    torch.testing.assert_close(held_out + sse, everywhere, rtol=1e-6, atol=0)


# ------------------------------------------------------------------ the operator under torch.compile


@EACH_QUICK
@pytest.mark.parametrize("op", [step_op, loss_op], ids=["step", "loss"])
@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS[:4])
def test_opcheck(backend, op, requires_grad, layout):
    inputs = draw_inputs(5, 7, 3, mask_dtype=torch.int32 if requires_grad else None, layouts=(layout,) * 3)
    if requires_grad and op is step_op:  # `loss` has no derivatives: callers hand it detached parameters
        inputs = with_grad(inputs)
    observations = observations_of(inputs.ratings, inputs.mask)
    torch.library.opcheck(op, (*inputs[:5], *observations, REG, backend, None, False))


@pytest.mark.parametrize("op", [step_op, loss_op], ids=["step", "loss"])
@pytest.mark.parametrize("encoding", ["uint8-code", "int8-bits"])
def test_opcheck_with_encoded_ratings(op, encoding):
    inputs = draw_inputs(5, 7, 3, ratings_dtype=torch.int8)
    if op is step_op:
        inputs = with_grad(inputs)
    observations = observations_of(encode_ratings(inputs.ratings, inputs.mask, encoding), None)
    torch.library.opcheck(op, (*inputs[:5], *observations, REG, "auto", None, False))


@pytest.fixture
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def train(loss_function, inputs):
    """Return loss and gradients, with differentiable operations before and after the operator."""
    inputs = with_grad(inputs)
    loss = loss_function(inputs.user_factors * 2, *inputs[1:])
    (loss * 0.5).backward()
    return loss.detach(), *grads_of(inputs)


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize(
    ("compiler", "mask_dtype"), [("aot_eager", None), ("aot_eager", torch.int32), ("inductor", torch.int32)]
)
def test_compiled_in_one_graph(compiler, mask_dtype):
    inputs = draw_inputs(21, 34, 5, mask_dtype=mask_dtype, layouts=("transposed", "contiguous", "contiguous"))
    compiled = {
        function: torch.compile(function, fullgraph=True, backend=compiler)
        for function in (mf_loss, mf_loss_and_grads, mf_sse)
    }
    assert_same(train(compiled[mf_loss], inputs), train(mf_loss, inputs))
    for arguments in (inputs, with_grad(inputs)):
        loss, grads = compiled[mf_loss_and_grads](*arguments)
        assert isinstance(grads, Grads)
        assert_right(inputs, (loss, grads))
        assert_same(flat((loss, grads)), flat(mf_loss_and_grads(*inputs)))
        sse = compiled[mf_sse](*arguments[:7])
        assert not sse.requires_grad
        assert_same([sse], [mf_sse(*inputs[:7])])
    with torch.no_grad():
        assert_same([compiled[mf_loss](*inputs)], [mf_loss(*inputs)])


@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_for_any_size_and_regulariser():
    compiled = torch.compile(mf_loss, fullgraph=True, dynamic=True, backend="aot_eager")
    for m, n, rank, reg in ((21, 34, 5, 0.1), (22, 30, 7, 0.2), (40, 3, 2, 0.3)):
        inputs = draw_inputs(m, n, rank, reg=reg)
        assert_same(train(compiled, inputs), train(mf_loss, inputs))


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("encoding", ["float32-nan", "uint8-code", "uint8-bits"])
def test_compiled_with_encoded_ratings(encoding):
    inputs = draw_inputs(21, 34, 5, ratings_dtype=torch.uint8)
    encoded = encode_ratings(inputs.ratings, inputs.mask, encoding)
    compiled = torch.compile(mf_loss_and_grads, fullgraph=True, backend="aot_eager")
    assert_right(inputs, compiled(*inputs[:5], encoded))


def test_beyond_2_to_the_31_ratings_on_meta_tensors():
    m, n = 1 << 17, 1 << 15
    assert m * n > 2**31
    P, Q, bu, bi, mu = (torch.empty(shape, device="meta") for shape in ((m, 8), (n, 8), (m,), (n, 1), ()))
    ratings = torch.empty(m, n, dtype=torch.float16, device="meta")
    loss, *grads = step_op(P, Q, bu, bi, mu, *Observations(ratings), REG, "auto", None, False)
    assert (loss.shape, loss.dtype, loss.is_meta) == ((), torch.float64, True)
    for grad, parameter in zip(grads, (P, Q, bu, bi, mu), strict=True):
        assert (grad.shape, grad.dtype, grad.is_meta) == (parameter.shape, parameter.dtype, True)
    with pytest.raises(ValueError, match=r"^ratings: expected shape \(131072, 32768\), got \(32768, 131072\)"):
        step_op(P, Q, bu, bi, mu, *Observations(ratings.T), REG, "auto", None, False)


# ------------------------------------------------------------------ sizes of 0


@EACH
@pytest.mark.parametrize("mask_dtype", [torch.bool, None])
@pytest.mark.parametrize("shape", [(0, 5, 3), (4, 0, 3), (4, 5, 0), (0, 0, 3), (4, 0, 0), (0, 0, 0)])
def test_empty_sizes_give_what_the_reference_gives(backend, shape, mask_dtype):
    inputs = draw_inputs(*shape, mask_dtype=mask_dtype)
    result = mf_loss_and_grads(*inputs, backend=backend)
    assert_right(inputs, result)
    for got, expected in zip(result[1], autograd_loss_and_grads(*inputs)[1], strict=True):
        torch.testing.assert_close(got, expected)
    assert_right(inputs, train_step(inputs, backend))
    sse, _ = oracle_loss_and_grads(*inputs._replace(reg=0.0))
    assert mf_sse(*inputs[:7], backend=backend).item() == pytest.approx(sse, rel=1e-5)


def train_step(inputs, backend):
    inputs = with_grad(inputs)
    loss = mf_loss(*inputs, backend=backend)
    loss.backward()
    return loss.detach(), grads_of(inputs)


# ------------------------------------------------------------------ options


@pytest.fixture
def options(monkeypatch):
    """Record what reaches a backend's step: (precision, deterministic, gradients) of each call."""
    seen = []

    def step(problem, precision, deterministic, gradients):
        seen.append((precision, deterministic, gradients))
        return importlib.import_module(MODULES["torch"]).step(problem, precision, deterministic, gradients)

    monkeypatch.setattr("kernels.step.choose", lambda name, problem, *_: SimpleNamespace(step=step))
    return seen


@pytest.mark.usefixtures("switches")
@pytest.mark.parametrize(("setting", "precision"), [("highest", "ieee"), ("high", "bf16x3"), ("medium", "tf32")])
def test_precision_follows_torch_unless_named(options, setting, precision):
    inputs = draw_inputs(4, 5, 2)
    torch.set_float32_matmul_precision(setting)
    mf_loss(*inputs)
    for name in PRECISIONS:
        mf_sse(*inputs[:7], precision=name)
    assert [seen[0] for seen in options] == [precision, *PRECISIONS]


def test_deterministic_where_asked_for_or_where_torch_is(options):
    inputs = draw_inputs(4, 5, 2)
    mf_loss_and_grads(*inputs)
    mf_loss_and_grads(*inputs, deterministic=True)
    try:
        torch.use_deterministic_algorithms(True)
        mf_loss(*with_grad(inputs)).backward()
        mf_sse(*inputs[:7])
    finally:
        torch.use_deterministic_algorithms(False)
    assert [seen[1:] for seen in options] == [(False, True), (True, True), (True, True), (True, False)]


@EACH
def test_deterministic_runs_are_bitwise_equal(backend):
    inputs = draw_inputs(150, 130, 6)
    first, second = (mf_loss_and_grads(*inputs, backend=backend, deterministic=True) for _ in range(2))
    assert_right(inputs, first)
    assert_same(flat(first), flat(second))


@pytest.mark.parametrize("function", [mf_loss, mf_loss_and_grads, mf_sse])
def test_unknown_names_are_refused(function):
    inputs = draw_inputs(4, 5, 2)[:7]
    with pytest.raises(
        ValueError, match=r"^backend: expected one of auto, triton, native, torch, interpret, got 'gpu'"
    ):
        function(*inputs, backend="gpu")
    with pytest.raises(ValueError, match=r"^precision: expected None or one of ieee, tf32x3, bf16x3, tf32, got 'fp32'"):
        function(*inputs, precision="fp32")


# ------------------------------------------------------------------ ratings of 32 and 64 bits


@EACH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("ratings_dtype", [torch.int32, torch.int64])
def test_wide_integers_where_lossless(backend, dtype, ratings_dtype):
    inputs = draw_inputs(33, 47, 6, dtype)
    inputs = inputs._replace(ratings=torch.randint(-5, 6, (33, 47)).to(ratings_dtype))
    if backend == "native":
        with pytest.raises(RuntimeError, match=f"this kernel does not decode ratings of {ratings_dtype}"):
            mf_loss(*inputs, backend=backend)
        backend = "auto"
    assert_right(inputs, mf_loss_and_grads(*inputs, backend=backend))
    assert_right(inputs, train_step(inputs, backend))
    everything = inputs._replace(mask=None)
    assert_right(everything, mf_loss_and_grads(*everything, backend=backend))


@pytest.mark.parametrize(
    ("dtype", "exact", "inexact"),
    [
        (torch.float32, [2**24, -(2**24), 2**24 + 2, 2**40, -(2**63)], [2**24 + 1, -(2**24) - 1, 2**40 + 1, 2**63 - 1]),
        (torch.float64, [2**53, 2**53 + 2, 2**62, -(2**63)], [2**53 + 1, -(2**53) - 1, 2**62 + 1, 2**63 - 1]),
    ],
)
def test_wide_integers_that_would_be_rounded_are_refused(dtype, exact, inexact):
    inputs = draw_inputs(1, 3, 2, dtype)
    remedy = {torch.float32: "pass float64 parameters, or ratings.double()", torch.float64: "pass ratings.double()"}
    for value in exact:
        ratings = torch.tensor([[1, value, 2]])
        loss = mf_loss(*inputs[:5], ratings)
        torch.testing.assert_close(loss, mf_loss(*inputs[:5], ratings.double()), rtol=1e-6, atol=0)
    for value in inexact:
        ratings = torch.tensor([[1, value, 2]])
        name = str(dtype).removeprefix("torch.")
        message = f"^ratings: expected integers that {name} holds exactly, got {value}; {re.escape(remedy[dtype])}"
        for function in (mf_loss, mf_loss_and_grads, mf_sse):
            with pytest.raises(ValueError, match=message):
                function(*inputs[:5], ratings)
        unobserved = torch.tensor([[1, 0, 1]])
        expected = mf_sse(*inputs[:5], ratings.clamp(max=9), unobserved)
        torch.testing.assert_close(mf_sse(*inputs[:5], ratings, unobserved), expected, rtol=1e-6, atol=0)


# ------------------------------------------------------------------ which backend runs


def test_backends_say_why_not():
    known = backends()
    assert list(known) == ["triton", "native", "torch", "interpret"]
    assert known["torch"] == Backend(True, "")
    for available, reason in known.values():
        assert available == (reason == "")
    if not (torch.cuda.is_available() or torch.xpu.is_available()) and known["interpret"].available:
        assert known["triton"] == Backend(False, "no CUDA, ROCm or XPU device")


def test_triton_by_name_on_cpu_tensors_is_refused():
    with pytest.raises(RuntimeError, match=r"^backend 'triton' cannot run .*: .*(got cpu|cannot be imported)"):
        mf_loss(*draw_inputs(4, 5, 2), backend="triton")


def test_cpu_backends_refuse_tensors_elsewhere():
    inputs = [value.to("meta") for value in draw_inputs(4, 5, 2)[:7]]
    for backend in ("native", "interpret"):
        if backend in CPU_BACKENDS:
            with pytest.raises(RuntimeError, match=f"^backend '{backend}' cannot run this problem here: .*meta"):
                mf_sse(*inputs, backend=backend)


def test_auto_falls_back_where_the_native_kernel_cannot_run(monkeypatch):
    native = importlib.import_module(MODULES["native"])
    monkeypatch.setattr(native, "unavailable", lambda *_: "no C++ compiler found")
    monkeypatch.setattr(native, "step", None)  # must not be reached
    inputs = draw_inputs(33, 47, 6)
    assert backends()["native"] == Backend(False, "no C++ compiler found")
    with pytest.raises(RuntimeError, match=r"^backend 'native' cannot run this problem here: no C\+\+ compiler found"):
        mf_loss(*inputs, backend="native")
    result = mf_loss_and_grads(*inputs)
    assert_right(inputs, result)
    assert_same(flat(result), flat(mf_loss_and_grads(*inputs, backend="torch")))


def test_an_unavailable_backend_is_refused_for_empty_sizes_too(monkeypatch):
    native = importlib.import_module(MODULES["native"])
    monkeypatch.setattr(native, "unavailable", lambda *_: "no C++ compiler found")
    with pytest.raises(RuntimeError, match=r"no C\+\+ compiler found"):
        mf_loss(*draw_inputs(0, 5, 2), backend="native")


# ------------------------------------------------------------------ signatures


def test_the_signatures_are_those_of_the_step():
    """Names, defaults and order; the plan and the reference take theirs from elsewhere."""
    step = inspect.signature(mf_loss_and_grads).parameters

    def of(function):
        return [(name, parameter.default) for name, parameter in inspect.signature(function).parameters.items()]

    shared = [(name, parameter.default) for name, parameter in step.items()]
    assert of(mf_loss) == shared
    assert of(mf_sse) == [(name, default) for name, default in shared if name != "reg"]
    assert of(plan_step) == [*((name, default) for name, default in shared if name != "backend"), ("target", "sm_90")]
    for reference in (autograd_loss_and_grads, oracle_loss_and_grads):
        assert of(reference) == shared[:8]


def test_the_arguments_are_listed_in_six_places():
    """The public functions', once without `reg`, and with `group`; the reference's Problem; and the harness's."""
    listed = []
    folders = ("kernels", "reference", "mfbench", "docs", "examples")
    for path in (file for folder in folders for file in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.Lambda)):
                names = {argument.arg for argument in node.args.args}
            elif isinstance(node, ast.ClassDef):
                names = {field.target.id for field in node.body if isinstance(field, ast.AnnAssign)}
            else:
                continue
            if names >= {*Grads._fields, "ratings", "mask"}:
                listed.append(f"{path.relative_to(ROOT)}:{node.name}")
    assert sorted(listed) == [
        "kernels/call.py:bundle", "kernels/distributed/loss.py:bundle_for_group", "kernels/distributed/loss.py:mf_sse",
        "kernels/loss.py:mf_sse", "mfbench/problems/inputs.py:Inputs", "reference/problem.py:Problem",
    ]  # fmt: skip


@pytest.mark.parametrize("function", [mf_loss, mf_loss_and_grads, mf_sse, plan_step])
def test_a_missing_or_unknown_argument_is_named(function):
    parameters = draw_inputs(4, 5, 2)[:5]
    with pytest.raises(TypeError, match=rf"^{function.__name__}\(\) missing .*'ratings'"):
        function(*parameters)
    with pytest.raises(TypeError, match=rf"^{function.__name__}\(\) got an unexpected keyword argument 'weights'"):
        function(*parameters, torch.ones(4, 5), weights=None)


def test_kernels_import_neither_reference_nor_harness():
    code = """
        import sys, torch, kernels
        square, line = torch.ones(2, 2), torch.ones(2)
        kernels.mf_loss(square, square, line, line, torch.ones(1), square)
        sys.exit(any(name.split(".")[0] in ("reference", "mfbench") for name in sys.modules))
    """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False).returncode == 0
