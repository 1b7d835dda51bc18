"""PyTorch's transforms, tracers and modes over the step: the right value, or an error that says why not."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.autograd.forward_ad as fwd
from torch._dynamo.testing import CompileCounterWithBackend
from torch.autograd.functional import jacobian
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, linearize, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from kernels import backends, encode_ratings, mf_loss, mf_loss_and_grads, mf_sse
from reference import oracle_loss_and_grads
from tests.problems import draw_inputs

M, N, RANK = 5, 7, 3
*PARAMETERS, RATINGS, MASK, REG = draw_inputs(M, N, RANK, torch.float64)
PARAMETERS = tuple(PARAMETERS)
LOSS, GRADS = oracle_loss_and_grads(*PARAMETERS, RATINGS, MASK, REG)
GRADS = [torch.as_tensor(value).reshape(p.shape) for value, p in zip(GRADS, PARAMETERS, strict=True)]
TANGENTS = tuple(torch.randn(p.shape, generator=torch.Generator().manual_seed(1)).double() for p in PARAMETERS)
ALONG = sum((g * t).sum() for g, t in zip(GRADS, TANGENTS, strict=True))
ONLY_FIRST = pytest.raises(RuntimeError, match="mf_loss has first derivatives only")


@pytest.fixture(params=[name for name in ("native", "torch", "interpret") if backends()[name].available])
def loss(request):
    return lambda *parameters: mf_loss(*parameters, RATINGS, MASK, REG, backend=request.param)


def close(got, expected):
    torch.testing.assert_close(got, torch.as_tensor(expected, dtype=torch.float64), rtol=1e-11, atol=1e-11)


# ------------------------------------------------------------------ forward mode


def test_jvp(loss):
    value, tangent = jvp(loss, PARAMETERS, TANGENTS)
    close(value, LOSS)
    close(tangent, ALONG)


@pytest.mark.parametrize("kind", ["dense", "encoded", "sparse", "sparse encoded"])
def test_forward_mode_of_every_kind_of_ratings(kind):
    """Also of the loss without regulariser, whose derivative lacks that of the norms."""
    ratings, mask = RATINGS, MASK
    if kind == "sparse":
        ratings, mask = RATINGS.masked_fill(MASK == 0, 0).to_sparse_csr(), None
        assert ratings.values().numel() == (MASK != 0).sum()
    elif kind != "dense":
        ratings, mask = encode_ratings(RATINGS, MASK, layout="sparse" if "sparse" in kind else "dense"), None
    close(jvp(lambda *p: mf_loss(*p, ratings, mask, REG), PARAMETERS, TANGENTS)[1], ALONG)
    squares = sum(2 * REG * (p * t).sum() for p, t in zip(PARAMETERS[:4], TANGENTS[:4], strict=True))
    close(jvp(lambda *p: mf_sse(*p, ratings, mask), PARAMETERS, TANGENTS)[1], ALONG - squares)


def test_linearize(loss):
    value, along = linearize(loss, *PARAMETERS)
    close(value, LOSS)
    close(along(*TANGENTS), ALONG)
    close(along(*(2 * tangent for tangent in TANGENTS)), 2 * ALONG)


@pytest.mark.parametrize("place", range(5))
def test_dual_tensors(loss, place):
    with fwd.dual_level():
        duals = [fwd.make_dual(p, t) if i == place else p
                 for i, (p, t) in enumerate(zip(PARAMETERS, TANGENTS, strict=True))]  # fmt: skip
        close(fwd.unpack_dual(loss(*duals)).tangent, (GRADS[place] * TANGENTS[place]).sum())


@pytest.mark.parametrize("strategy", ["forward-mode", "reverse-mode"])
def test_jacobian(loss, strategy):
    for got, expected in zip(jacobian(loss, PARAMETERS, strategy=strategy, vectorize=True), GRADS, strict=True):
        close(got, expected)


@pytest.mark.parametrize("transform", [grad, jacrev, jacfwd])
def test_gradient_by_a_transform(loss, transform):
    for got, expected in zip(transform(loss, argnums=tuple(range(5)))(*PARAMETERS), GRADS, strict=True):
        close(got, expected)
    sse = transform(lambda bu: mf_sse(*PARAMETERS[:2], bu, *PARAMETERS[3:], RATINGS, MASK))(PARAMETERS[2])
    close(sse, GRADS[2] - 2 * REG * PARAMETERS[2])


@pytest.mark.parametrize(
    "second",
    [
        lambda f: hessian(f)(PARAMETERS[0]),
        lambda f: grad(lambda p: grad(f)(p).sum())(PARAMETERS[0]),
        lambda f: jvp(grad(f), PARAMETERS[:1], TANGENTS[:1]),
        lambda f: grad(lambda p: jvp(f, (p,), TANGENTS[:1])[1])(PARAMETERS[0]),
        lambda f: jvp(lambda p: jvp(f, (p,), TANGENTS[:1])[1], PARAMETERS[:1], TANGENTS[:1]),
        lambda f: jacfwd(jacfwd(f))(PARAMETERS[0]),
        lambda f: jacrev(jacrev(f))(PARAMETERS[0]),
    ],
)
def test_second_derivatives_are_refused(loss, second):
    with ONLY_FIRST:
        second(lambda p: loss(p, *PARAMETERS[1:]))


def test_a_derivative_of_the_returned_gradients_is_refused():
    with ONLY_FIRST:
        jvp(lambda p: mf_loss_and_grads(p, *PARAMETERS[1:], RATINGS, MASK)[1][0], PARAMETERS[:1], TANGENTS[:1])
    with ONLY_FIRST:
        grad(lambda p: mf_loss_and_grads(p, *PARAMETERS[1:], RATINGS, MASK)[1][0].sum())(PARAMETERS[0])


@pytest.mark.parametrize("transform", [lambda f, x: grad(f)(x), lambda f, x: jvp(f, (x,), (x,))])
def test_a_derivative_by_the_ratings_is_refused(transform):
    with pytest.raises(ValueError, match=r"^ratings: expected a constant"):
        transform(lambda ratings: mf_loss(*PARAMETERS, ratings, MASK), RATINGS.nan_to_num(0, 0, 0))


# ------------------------------------------------------------------ vmap


def test_vmap(loss):
    means = torch.tensor([[3.0], [3.5], [4.0]], dtype=torch.float64)
    expected = [loss(*PARAMETERS[:4], mean) for mean in means]
    close(vmap(loss, in_dims=(None,) * 4 + (0,))(*PARAMETERS[:4], means), torch.stack(expected))
    ratings = torch.stack([RATINGS, RATINGS + 1], dim=2)
    for function in (mf_loss, mf_sse, lambda *a: mf_loss_and_grads(*a)[1].item_bias):
        got = vmap(lambda r, function=function: function(*PARAMETERS, r, MASK), in_dims=2)(ratings)
        close(got, torch.stack([function(*PARAMETERS, r, MASK) for r in ratings.unbind(2)]))


def test_gradients_per_problem(loss):
    means = torch.tensor([[3.0], [3.5]], dtype=torch.float64)
    got = vmap(grad(lambda mean: loss(*PARAMETERS[:4], mean)))(means)
    close(got, torch.stack([grad(lambda mean: loss(*PARAMETERS[:4], mean))(mean) for mean in means]))


# ------------------------------------------------------------------ tracers, modes, checkpoints


@pytest.mark.filterwarnings("ignore")
def test_tracing_records_the_operator(loss):
    def of_factors(p):
        return loss(p, *PARAMETERS[1:])

    other = PARAMETERS[0] * 2
    traced = torch.jit.trace(of_factors, (PARAMETERS[0],), check_trace=False)
    assert "mfbench::loss" in [node.kind() for node in traced.graph.nodes()]
    close(traced(other), of_factors(other))
    for function, name in ((of_factors, "mfbench.loss.default"), (grad(of_factors), "mfbench.step.default")):
        graph = make_fx(function)(PARAMETERS[0])
        assert name in [str(node.target) for node in graph.graph.nodes]
        close(graph(other), function(other))


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
@pytest.mark.parametrize(
    "function", [mf_loss, mf_sse, lambda *a: mf_loss_and_grads(*a)[0], lambda *a: mf_loss_and_grads(*a)[1].item_bias]
)
def test_every_function_is_recorded_in_every_mode(function, mode):
    def of_factors(p):
        return function(p, *PARAMETERS[1:], RATINGS, MASK)

    graph = make_fx(of_factors, tracing_mode=mode, _allow_non_fake_inputs=True)(PARAMETERS[0])
    assert any(str(node.target).startswith("mfbench.") for node in graph.graph.nodes)
    other = PARAMETERS[0] * 2
    close(graph(other), of_factors(other))


def test_export_records_the_operator():
    class Model(torch.nn.Module):
        def forward(self, *parameters):
            return mf_loss(*parameters, RATINGS, MASK)

    exported = torch.export.export(Model(), PARAMETERS)
    assert any("mfbench" in str(node.target) for node in exported.graph.nodes)
    close(exported.module()(*PARAMETERS), LOSS)


def test_flops_are_counted(loss):
    one = 2 * M * N * RANK
    with FlopCounterMode(display=False) as forward:
        loss(*PARAMETERS)
    leaf = PARAMETERS[0].clone().requires_grad_()
    with FlopCounterMode(display=False) as both:
        loss(leaf, *PARAMETERS[1:]).backward()
    close(leaf.grad, GRADS[0])
    assert (forward.get_total_flops(), both.get_total_flops()) == (one, 3 * one)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoint(loss, reentrant):
    leaves = [p.clone().requires_grad_() for p in PARAMETERS]
    checkpoint(loss, *leaves, use_reentrant=reentrant).backward()
    for leaf, expected in zip(leaves, GRADS, strict=True):
        close(leaf.grad, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_casts_the_parameters(dtype):
    halves = [p.to(dtype).requires_grad_() for p in PARAMETERS]
    with pytest.raises(TypeError, match=r"^user_factors: expected float32 or float64"):
        mf_loss(*halves, RATINGS, MASK)
    floats = [p.detach().float().requires_grad_() for p in halves]
    expected = mf_loss(*floats, RATINGS, MASK)
    expected.backward()
    with torch.autocast("cpu", torch.bfloat16):
        loss = mf_loss(*halves, RATINGS, MASK)
        compiled = torch.compile(mf_loss, backend="aot_eager", fullgraph=True)(*halves, RATINGS, MASK)
    loss.backward()
    assert torch.equal(loss, expected)
    assert torch.equal(compiled, expected)
    for half, full in zip(halves, floats, strict=True):
        assert torch.equal(half.grad, full.grad.to(dtype))


@pytest.mark.parametrize("dynamic", [None, True])
def test_a_changing_regulariser_compiles_at_most_twice(dynamic):
    torch.compiler.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(mf_loss, backend=counter, fullgraph=True, dynamic=dynamic)
    for reg in [step / 16 for step in range(1, 12)]:
        leaf = PARAMETERS[0].clone().requires_grad_()
        loss = compiled(leaf, *PARAMETERS[1:], RATINGS, MASK, reg)
        loss.backward()
        close(loss.detach(), mf_loss(*PARAMETERS, RATINGS, MASK, reg))
        close(leaf.grad, mf_loss_and_grads(*PARAMETERS, RATINGS, MASK, reg)[1].user_factors)
    assert counter.frame_count <= 2


@pytest.mark.parametrize("transform", [grad, jacfwd])
def test_transforms_inside_a_compiled_function_run_eagerly(transform):
    torch.compiler.reset()

    def gradient(p):
        return transform(lambda q: mf_loss(q, *PARAMETERS[1:], RATINGS, MASK))(p)

    close(torch.compile(gradient, backend="aot_eager")(PARAMETERS[0]), GRADS[0])
    torch.compiler.reset()
    with pytest.raises(torch._dynamo.exc.Unsupported, match="transformed_loss"):
        torch.compile(gradient, backend="aot_eager", fullgraph=True)(PARAMETERS[0])


class Model(torch.nn.Module):
    """Parameters and encoded ratings, as a user's module holds them."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = torch.nn.ParameterList(PARAMETERS)
        self.ratings = encode_ratings(RATINGS, MASK, layout="sparse")

    def forward(self):
        parts = list(self.parts)  # PyTorch 2.11 cannot compile a call with *self.parts
        return mf_loss(*parts, self.ratings, reg=REG)


def test_a_module_is_copied_called_with_other_parameters_and_compiled():
    model = Model()
    close(copy.deepcopy(model)().detach(), LOSS)
    named = {f"parts.{place}": p for place, p in enumerate(PARAMETERS)}
    for name, expected in zip(named, GRADS, strict=True):
        close(grad(lambda p, name=name: functional_call(model, named | {name: p}))(named[name]), expected)
    torch.compiler.reset()
    compiled = torch.compile(model, backend="aot_eager")()
    compiled.backward()
    close(compiled.detach(), LOSS)
    close(model.parts[0].grad, GRADS[0])


def test_gradients_of_each_user_alone():
    p, q, bu, bi, mu = PARAMETERS
    of_user = grad(lambda p, b, ratings, mask: mf_loss(p[None], q, b[None], bi, mu, ratings[None], mask[None], 0.0))
    got = vmap(of_user)(p, bu.reshape(-1), RATINGS, MASK)
    close(got, GRADS[0] - 2 * REG * p)


def test_sizes_that_change_compile_at_most_twice():
    torch.compiler.reset()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(mf_loss, backend=counter, fullgraph=True)
    for size in range(2, 12):
        inputs = draw_inputs(size + 3, 2 * size + 1, RANK, torch.float64)
        close(compiled(*inputs), mf_loss(*inputs))
    assert counter.frame_count <= 2
