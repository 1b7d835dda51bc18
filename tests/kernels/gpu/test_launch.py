"""Tests on a GPU (`pytest -m gpu`), not run by the authors: a failure says which output is off and by how much."""

import contextlib

import pytest
import torch

from kernels import Grads, backends, encode_ratings, mf_loss, mf_loss_and_grads, mf_sse
from kernels.gpu import config, launch
from tests.problems import RATINGS, assert_right, draw_inputs

pytestmark = pytest.mark.gpu

DEVICE = "xpu" if torch.xpu.is_available() else "cuda"
PRECISIONS = ("ieee", "tf32x3", "bf16x3", "tf32")
# Error of a product relative to its operands, as tests/ptx has it for the compiled code; the rest is float32.
TOLERANCE = {"ieee": 1e-5, "tf32x3": 2e-5, "bf16x3": 2e-4, "tf32": 2e-2}
OUTPUTS = ("loss", *Grads._fields)


def on_device(inputs):
    return type(inputs)(*(value.to(DEVICE) if torch.is_tensor(value) else value for value in inputs))


def errors(result, expected):
    """Return for each output the largest error over the rms of the exact one."""
    values = [(value.cpu().double(), exact.cpu().double()) for value, exact in zip(result, expected, strict=True)]
    return {
        name: ((value - exact).abs().max() / exact.square().mean().sqrt().clamp_min(1e-300)).item()
        for name, (value, exact) in zip(OUTPUTS, values, strict=True)
    }


def in_float64(inputs):
    """Run the step with backend `torch` in float64 on the CPU."""
    parameters = [parameter.cpu().double() for parameter in inputs[:5]]
    ratings, mask = inputs.ratings.cpu(), None if inputs.mask is None else inputs.mask.cpu()
    loss, grads = mf_loss_and_grads(*parameters, ratings, mask, inputs.reg, backend="torch")
    return loss, *grads


def step(inputs, **options):
    loss, grads = mf_loss_and_grads(*inputs, backend="triton", **options)
    return loss, *grads


def skip_unless_shipped(inputs, precision, deterministic=False):
    target = launch.target_of(torch.device(DEVICE, 0))
    try:
        config.pick(target, inputs.user_factors.shape[1], precision, deterministic, inputs.user_factors.element_size())
    except config.NotShipped as reason:
        pytest.skip(f"not shipped for {target.name}: {reason}")


def test_the_backend_is_available():
    assert backends()["triton"].reason == ""


@pytest.mark.parametrize("deterministic", [False, True], ids=["fast", "deterministic"])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("rank", [1, 8, 16, 30, 32, 62, 64, 100, 128, 256, 500])
@pytest.mark.parametrize("mask_dtype", [torch.uint8, torch.float32])
def test_every_build(rank, precision, deterministic, mask_dtype):
    inputs = on_device(draw_inputs(700, 1100, rank, mask_dtype=mask_dtype, seed=rank))
    skip_unless_shipped(inputs, precision, deterministic)
    wrong = errors(step(inputs, precision=precision, deterministic=deterministic), in_float64(inputs))
    tolerance = TOLERANCE[precision] * rank**0.5
    assert all(error < tolerance for error in wrong.values()), (wrong, tolerance)


@pytest.mark.parametrize("ratings_dtype", RATINGS)
@pytest.mark.parametrize("mask_dtype", [None, torch.bool, torch.uint8, torch.int64, torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("m", "n"), [(1, 1), (65, 129), (512, 512), (33, 5000)])
def test_ratings_and_masks(m, n, ratings_dtype, mask_dtype):
    inputs = on_device(draw_inputs(m, n, 30, ratings_dtype=ratings_dtype, mask_dtype=mask_dtype))
    wrong = errors(step(inputs, precision="ieee"), in_float64(inputs))
    assert all(error < 1e-4 for error in wrong.values()), wrong


@pytest.mark.parametrize("mask_dtype", [torch.bool, torch.float32])
@pytest.mark.parametrize("layout", ["transposed", "every second", "row repeated", "column repeated"])
def test_layouts(layout, mask_dtype):
    inputs = on_device(draw_inputs(150, 210, 30, layouts=(layout,) * 3, mask_dtype=mask_dtype))
    wrong = errors(step(inputs, precision="ieee"), in_float64(inputs))
    assert all(error < 1e-4 for error in wrong.values()), wrong


@pytest.mark.parametrize("encoding", ["uint8-code", "uint8-bits", "bfloat16-nan", "float32-nan"])
def test_encodings(encoding):
    inputs = on_device(draw_inputs(300, 500, 30, ratings_dtype=torch.uint8))
    encoded = encode_ratings(inputs.ratings, inputs.mask, encoding, layout="dense")
    wrong = errors(step(inputs._replace(ratings=encoded, mask=None), precision="ieee"), in_float64(inputs))
    assert all(error < 1e-4 for error in wrong.values()), wrong


@pytest.mark.parametrize("deterministic", [False, True], ids=["fast", "deterministic"])
@pytest.mark.parametrize("rank", [30, 200])
def test_empty_tiles_are_left_out(rank, deterministic):
    inputs = on_device(draw_inputs(1000, 1500, rank, ratings_dtype=torch.uint8))
    tiles = torch.rand(16, 24, generator=torch.Generator().manual_seed(0)) < 0.1
    inside = tiles.repeat_interleave(64, 0).repeat_interleave(64, 1)[:1000, :1500].to(DEVICE)
    inputs = inputs._replace(mask=inputs.mask.bool() & inside)
    encoded = encode_ratings(inputs.ratings, inputs.mask, layout="dense")
    assert encoded.occupied is not None
    result = step(inputs._replace(ratings=encoded, mask=None), precision="ieee", deterministic=deterministic)
    wrong = errors(result, in_float64(inputs))
    assert all(error < 1e-4 for error in wrong.values()), wrong


def test_float64():
    inputs = on_device(draw_inputs(300, 500, 30, dtype=torch.float64))
    skip_unless_shipped(inputs, "ieee")
    wrong = errors(step(inputs), in_float64(inputs))
    assert all(error < 1e-11 for error in wrong.values()), wrong


def test_backend_auto_is_right_and_sse_is_its_own_pass():
    inputs = on_device(draw_inputs(300, 500, 30))
    result = mf_loss_and_grads(*inputs, precision="ieee")
    assert_right(draw_inputs(300, 500, 30), (result[0].cpu(), Grads(*(grad.cpu() for grad in result[1]))))
    sse = mf_sse(*inputs[:7], precision="ieee").item()
    assert sse == pytest.approx(in_float64(inputs._replace(reg=0.0))[0].item(), rel=1e-5)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("rank", [30, 128])
def test_deterministic_over_20_runs(rank, precision):
    inputs = on_device(draw_inputs(3000, 2000, rank))
    skip_unless_shipped(inputs, precision, deterministic=True)
    first = step(inputs, precision=precision, deterministic=True)
    for run in range(19):
        again = step(inputs, precision=precision, deterministic=True)
        different = [name for name, a, b in zip(OUTPUTS, first, again, strict=True) if not torch.equal(a, b)]
        assert not different, (run, different)


def test_autograd_and_compile():
    inputs = on_device(draw_inputs(200, 300, 30))
    parameters = [parameter.requires_grad_() for parameter in inputs[:5]]
    mf_loss(*parameters, *inputs[5:], precision="ieee").backward()
    eager = [parameter.grad.clone() for parameter in parameters]
    wrong = errors((torch.ones(()), *eager), (torch.ones(()), *in_float64(inputs)[1:]))
    assert all(error < 1e-4 for error in wrong.values()), wrong
    for parameter in parameters:
        parameter.grad = None
    torch.compile(lambda *p: mf_loss(*p, *inputs[5:], precision="ieee"), fullgraph=True)(*parameters).backward()
    for parameter, grad in zip(parameters, eager, strict=True):
        torch.testing.assert_close(parameter.grad, grad, rtol=1e-4, atol=1e-4 * grad.abs().max().item())


@pytest.mark.skipif(DEVICE != "cuda", reason="graphs are captured on CUDA and ROCm")
def test_graph_capture():
    inputs = on_device(draw_inputs(500, 700, 30))
    expected = step(inputs, precision="ieee")  # compiles outside the capture
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step(inputs, precision="ieee")
    for _ in range(3):
        graph.replay()
    wrong = errors(captured, expected)
    assert all(error < 1e-5 for error in wrong.values()), wrong


@pytest.mark.skipif(DEVICE != "cuda", reason="the sync debug mode is CUDA's")
def test_nothing_waits_for_the_device():
    inputs = on_device(draw_inputs(500, 700, 30))
    step(inputs)
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(inputs)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_on_another_stream():
    inputs = on_device(draw_inputs(2000, 3000, 30))
    expected = step(inputs, precision="ieee")
    module = getattr(torch, DEVICE)
    stream = module.Stream()
    with module.stream(stream):
        ratings = inputs.ratings + 0  # ready only on this stream
        result = step(inputs._replace(ratings=ratings), precision="ieee")
    stream.synchronize()
    wrong = errors(result, expected)
    assert all(error < 1e-5 for error in wrong.values()), wrong


def test_on_another_device():
    if getattr(torch, DEVICE).device_count() < 2:
        pytest.skip("one device")
    inputs = draw_inputs(300, 500, 30)
    with getattr(torch, DEVICE).device(0):
        moved = inputs._replace(**{k: v.to(f"{DEVICE}:1") for k, v in inputs._asdict().items() if torch.is_tensor(v)})
        result = step(moved, precision="ieee")
    assert all(value.device.index == 1 for value in result)
    wrong = errors(result, in_float64(inputs))
    assert all(error < 1e-4 for error in wrong.values()), wrong


def test_more_than_2_to_the_31_ratings():
    m, n = 1 << 16, (1 << 15) + 64  # 2 GiB of uint8
    free = torch.cuda.mem_get_info()[0] if DEVICE == "cuda" else 16 << 30
    if free < 6 << 30:
        pytest.skip(f"needs 6 GiB of free memory, has {free / 2**30:.1f}")
    parameters = on_device(draw_inputs(m, 64, 8, ratings_dtype=torch.uint8, mask_dtype=None))
    Q = parameters.item_factors.repeat(n // 64, 1)
    bi = parameters.item_bias.repeat(n // 64, 1)
    ratings = torch.full((m, n), 255, dtype=torch.uint8, device=DEVICE)
    ratings[-1, -64:], ratings[0, :64] = 3, 5  # the two ends of the memory; all else is missing
    encoded = encode_ratings(torch.tensor([[0.0, 254.0]], device=DEVICE), layout="dense")._replace(values=ratings)
    loss, grads = mf_loss_and_grads(
        parameters.user_factors, Q, parameters.user_bias, bi, parameters.global_bias, encoded, reg=0.0,
        backend="triton", precision="ieee",
    )  # fmt: skip
    ends = torch.tensor([0, m - 1], device=DEVICE)
    few = torch.full((2, 64), 5.0, device=DEVICE)
    few[1] = 3
    P, bu = parameters.user_factors[ends], parameters.user_bias[ends]
    exact_loss, exact = mf_loss_and_grads(P, Q[:64], bu, bi[:64], parameters.global_bias, few, reg=0.0, backend="torch")
    torch.testing.assert_close(loss, exact_loss, rtol=1e-5, atol=0)
    torch.testing.assert_close(grads.user_factors[ends], exact.user_factors, rtol=1e-4, atol=1e-3)
    assert not grads.user_factors[1 : m - 1].any()


def test_memory_beyond_inputs_and_outputs():
    if DEVICE != "cuda":
        pytest.skip("memory is counted on CUDA and ROCm")
    inputs = on_device(draw_inputs(4096, 4096, 30))
    with contextlib.suppress(RuntimeError):
        step(inputs)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = step(inputs)
    outputs = sum(value.numel() * value.element_size() for value in result)
    assert torch.cuda.max_memory_allocated() - before - outputs < 2 * config.WORKSPACE_BYTES
