"""The fused kernel on a GPU against the float64 oracle. What only a device can show: skipped where there is none."""

from __future__ import annotations

import pytest
import torch

from kernels import backends, encode_ratings, mf_loss, mf_loss_and_grads, mf_sse
from kernels.loss import PRECISIONS
from mfbench import gate, verify
from mfbench.inputs import on_device
from tests.problems import draw_inputs

pytestmark = pytest.mark.gpu
DEVICE = "xpu" if torch.xpu.is_available() else "cuda"
BACKEND = "triton"


def on_gpu(inputs):
    return on_device(inputs, DEVICE)


def assert_right(inputs, result, precision="ieee"):
    """The result of the inputs on the device, within the gate's bound of the same inputs on the CPU."""
    loss, grads = result
    outputs = [value.detach().cpu().double().numpy() for value in (loss, *grads)]
    verdicts = gate.standard(inputs).coarsened(gate.PRECISION_EPS.get(precision, 0.0)).judge(outputs)
    wrong = {name: verdict for name, verdict in verdicts.items() if not verdict.ok}
    assert not wrong, wrong


def flat(result):
    loss, grads = result
    return loss, *grads


@pytest.mark.parametrize("problem", list(verify.draw(60, seed=11)), ids=lambda problem: problem.description)
def test_drawn_problems(problem):
    step = verify.Provider(
        BACKEND, lambda inputs: lambda: mf_loss_and_grads(*inputs, backend=BACKEND, precision="ieee")
    )
    inputs = on_gpu(problem.inputs)
    _, wrong = verify.check(step, inputs, gate.standard(problem.inputs))
    assert not wrong


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("rank", [1, 14, 30, 32, 62, 64, 128])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision_and_width(precision, rank, deterministic):
    inputs = draw_inputs(333, 277, rank, mask_dtype=torch.uint8)
    options = {"backend": BACKEND, "precision": precision, "deterministic": deterministic}
    assert_right(inputs, mf_loss_and_grads(*on_gpu(inputs), **options), precision)


@pytest.mark.parametrize("encoding", ["uint8-code", "int8-bits", "bfloat16-nan", "float32-nan"])
def test_encoded_ratings(encoding):
    inputs = draw_inputs(333, 277, 30, ratings_dtype=torch.int8, mask_dtype=torch.uint8)
    given = on_gpu(inputs)
    encoded = encode_ratings(given.ratings, given.mask, encoding)
    assert_right(inputs, mf_loss_and_grads(*given[:5], encoded, backend=BACKEND, precision="ieee"))


def test_deterministic_runs_are_bitwise_equal():
    inputs = on_gpu(draw_inputs(3000, 2000, 30))
    runs = [flat(mf_loss_and_grads(*inputs, backend=BACKEND, deterministic=True)) for _ in range(5)]
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(run, runs[0], strict=True))


def test_backward_and_forward_only():
    inputs = draw_inputs(333, 277, 30)
    parameters = [parameter.requires_grad_() for parameter in on_gpu(inputs)[:5]]
    arguments = (*parameters, *on_gpu(inputs)[5:7])
    loss = mf_loss(*arguments, backend=BACKEND, precision="ieee")
    loss.backward()
    assert_right(inputs, (loss, [parameter.grad for parameter in parameters]))
    norms = sum(parameter.detach().double().square().sum() for parameter in parameters[:4])
    sse = mf_sse(*arguments, backend=BACKEND, precision="ieee")
    torch.testing.assert_close(sse + 0.1 * norms, loss.detach(), rtol=1e-10, atol=0)


def test_an_observed_nan_reaches_exactly_its_own_outputs():
    inputs = draw_inputs(333, 277, 30, density=1.0)
    inputs.ratings[200, 131] = float("nan")
    for precision in PRECISIONS:
        loss, grads = mf_loss_and_grads(*on_gpu(inputs), backend=BACKEND, precision=precision)
        assert loss.isnan()
        for grad, place in zip(grads, (200, 131, 200, 131, 0), strict=True):
            nan = grad.isnan().reshape(len(grad), -1)
            assert nan[place].all()
            assert nan.sum() == nan[place].numel()


def test_works_on_a_stream_of_the_callers():
    inputs = draw_inputs(333, 277, 30)
    given = on_gpu(inputs)
    accelerator = getattr(torch, DEVICE)
    accelerator.synchronize()
    stream = accelerator.Stream()
    with accelerator.stream(stream):
        result = mf_loss_and_grads(*given, backend=BACKEND, precision="ieee")
    stream.synchronize()
    assert_right(inputs, result)


def test_auto_takes_the_fused_kernel():
    assert backends()["triton"].available
    inputs = on_gpu(draw_inputs(333, 277, 30))
    auto, named = (mf_loss_and_grads(*inputs, backend=name, deterministic=True) for name in ("auto", BACKEND))
    assert all(torch.equal(a, b) for a, b in zip(flat(auto), flat(named), strict=True))


def test_compiled_in_one_graph():
    inputs = draw_inputs(333, 277, 30)
    compiled = torch.compile(mf_loss_and_grads, fullgraph=True)
    assert_right(inputs, compiled(*on_gpu(inputs), precision="ieee"))
