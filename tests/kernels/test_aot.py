"""Launch plans: what a device would receive, compiled for it; nothing here runs on one."""

import re

import numpy as np
import pytest
import torch

from kernels import encode_ratings, mf_loss_and_grads
from kernels.aot import _compiled, _type, plan_loss, plan_step
from kernels.gpu import config
from kernels.gpu.interpret import run
from reference import oracle_loss_and_grads
from tests.problems import assert_right, checked, draw_inputs

pytest.importorskip("triton", reason="Triton is not installed")
from kernels.gpu.plan import plan_launches

NAMES = ("sm_80", "sm_90", "gfx942")


def aligned_inputs(m=150, n=96, rank=30, **options):
    return draw_inputs(m, n, rank, mask_dtype=torch.uint8, **options)


@pytest.fixture(scope="module", params=NAMES)
def plan(request):
    """Return a plan for each kind of target, with its inputs."""
    inputs = aligned_inputs()
    return request.param, inputs, plan_step(*inputs, precision="ieee", deterministic=True, target=request.param)


def test_float8_weights_are_not_shipped():
    inputs = draw_inputs(40, 30, 8, mask_dtype=torch.float8_e5m2)
    with pytest.raises(ValueError, match=r"not shipped for sm_90: .* masks of torch.float8_e5m2; pass mask.half\(\)"):
        plan_step(*inputs, target="sm_90")


def test_builds_are_clean(plan):
    name, _, step = plan
    assert [launch.name for launch in step.launches] == ["prepare", "fused_step", "finish"]
    for launch in step.launches:
        assert launch.stack_bytes == 0
        assert 0 < launch.registers <= 512
        assert launch.shared_bytes <= config.TARGETS[name].shared_bytes
        assert (launch.ptx is None, launch.amdgcn is None) == (name[0] == "g", name[0] == "s")
        assert len(launch.grid) == 3
    if name[0] == "s":
        assert launch.cubin[:4] == b"\x7fELF"
        assert "EXIT" in launch.sass
    else:
        assert launch.sass is None
        assert launch.hsaco[:4] == b"\x7fELF"


def test_arguments_are_those_of_the_compiled_kernel(plan):
    name, inputs, step = plan
    for launch in step.launches:
        if name[0] == "s":
            header = launch.ptx.split(".entry", 1)[1].split("{", 1)[0]
            kinds = re.findall(r"\.param \.(\w+)(?: \.ptr)?", header)
            assert len(kinds) == len(launch.args)
            for kind, value in zip(kinds, launch.args, strict=True):
                expected = "u64" if isinstance(value, torch.Tensor) else "f64" if isinstance(value, float) else "u32"
                assert kind in (expected, "u64")  # null pointers are 0
        assert launch.args[-1] == 0
    storages = [value.data_ptr() for value in step.launches[1].args if isinstance(value, torch.Tensor)]
    assert inputs.ratings.data_ptr() in storages
    assert inputs.mask.data_ptr() in storages


@pytest.mark.parametrize("deterministic", [False, True], ids=["fast", "deterministic"])
@pytest.mark.parametrize("name", ["sm_80", "sm_90", "sm_100", "gfx90a", "gfx942"])
@pytest.mark.parametrize("precision", ["ieee", "tf32x3"])
@pytest.mark.usefixtures("poisoned")
@pytest.mark.interpret
def test_the_plan_of_a_device_interpreted(name, precision, deterministic):
    """The tiles, the grid and the buffers of a device, run in Triton's interpreter."""
    inputs = draw_inputs(90, 77, 17, mask_dtype=None)
    problem = checked(inputs)
    try:
        step = plan_launches(problem, config.TARGETS[name], precision, deterministic, gradients=True)
    except config.NotShipped as reason:
        pytest.skip(f"not shipped for {name}: {reason}")
    for call in step.calls:
        run(call)
    loss, grads = step.result()
    exact_loss, exact = oracle_loss_and_grads(*inputs)
    np.testing.assert_allclose(loss.item(), exact_loss, rtol=1e-5)
    for grad, expected in zip(grads, exact, strict=True):
        rms = np.sqrt(np.mean(np.square(expected)))
        np.testing.assert_allclose(grad.numpy(), expected, rtol=0, atol=1e-4 * rms)


@pytest.mark.parametrize("deterministic", [False, True], ids=["fast", "deterministic"])
@pytest.mark.parametrize("name", ["sm_90", "gfx90a"])
@pytest.mark.usefixtures("poisoned")
@pytest.mark.interpret
def test_the_plan_of_a_device_for_sparse_ratings_interpreted(name, deterministic):
    inputs = draw_inputs(4, 7, 17, density=0.7)
    ratings = encode_ratings(inputs.ratings, inputs.mask, layout="sparse")
    step = plan_launches(checked(inputs._replace(ratings=ratings, mask=None)), config.TARGETS[name], "tf32",
                         deterministic, gradients=True)  # fmt: skip
    assert [call.kernel.fn.__name__ for call in step.calls] == ["prepare", "sparse_step", "finish"]
    for call in step.calls:
        run(call)
    assert_right(inputs, step.result())


@pytest.mark.parametrize("planned", [plan_step, plan_loss])
def test_sparse_ratings_are_checked_before_they_are_planned(planned):
    inputs = draw_inputs(2, 3, 4)
    ratings = torch.sparse_csr_tensor([0, 1, 2], [1, 7], torch.ones(2), (2, 3), check_invariants=False)
    with pytest.raises(ValueError, match="ratings: expected columns from 0 to 2, got 7 in row 1"):
        planned(*inputs[:5], ratings, target="sm_90")


def test_a_loss_is_planned_as_two_launches():
    inputs = aligned_inputs(m=20, n=16)
    launches = plan_loss(*inputs, precision="ieee", target="sm_80").launches
    assert [launch.name for launch in launches] == ["prepare", "fused_step"]


def test_transposed_ratings_are_read_along_their_rows():
    inputs = aligned_inputs(m=96, n=64)
    inputs = inputs._replace(ratings=inputs.ratings.T.contiguous().T, mask=inputs.mask.T.contiguous().T)
    _, launch, _ = plan_step(*inputs, precision="ieee", target="sm_80").launches
    assert re.search(r"cp\.async\.cg\.shared\.global \[[^]]*\], \[[^]]*\], 0x10", launch.ptx)


@pytest.mark.parametrize("encoding", ["uint8-code", "float32-nan"])
def test_encoded_ratings(encoding):
    inputs = aligned_inputs()
    whole = inputs._replace(ratings=inputs.ratings.nan_to_num(0, 0, 0).round())
    encoded = encode_ratings(whole.ratings, whole.mask, encoding, layout="dense")
    _, launch, _ = plan_step(*whole[:5], encoded, precision="tf32", target="sm_80").launches
    assert any(isinstance(arg, torch.Tensor) and arg.data_ptr() == encoded.values.data_ptr() for arg in launch.args)
    assert "mma.sync" in launch.ptx


@pytest.mark.parametrize("precision", ["tf32", "bf16x3", "tf32x3"])
def test_partial_sums_of_adjacent_items_need_no_shared_memory_on_sm_100(monkeypatch, precision):
    """Sums of items 16 apart send the errors through shared memory, with barriers."""
    counts = []
    for adjacent in (True, False):
        monkeypatch.setattr(config.Config, "adjacent", adjacent)
        _, launch, _ = plan_step(*aligned_inputs(), precision=precision, target="sm_100").launches
        assert "tcgen05.mma" in launch.ptx
        counts.append((launch.ptx.count("st.shared"), launch.ptx.count("bar.sync")))
    assert all(few < more for few, more in zip(*counts, strict=True)), counts


@pytest.mark.parametrize("name", ["sm_80", "gfx942"])
def test_lists_of_occupied_tiles_compile_cleanly(name):
    inputs = aligned_inputs(m=160, n=160)
    mask = torch.zeros(160, 160, dtype=torch.bool)
    mask[:64, 64:128] = True
    encoded = encode_ratings(inputs.ratings.nan_to_num(0, 0, 0).round(), mask, layout="dense")
    assert encoded.occupied is not None
    for launch in plan_step(*inputs[:5], encoded, precision="ieee", target=name).launches:
        assert launch.stack_bytes == 0
        assert "tile_lists_ptr" not in launch.constants  # not compiled away


def test_rows_are_addressed_in_64_bits():
    """m * n exceeds 2**31 here: no product of a row and its stride may have 32 bits."""
    m, n = 1 << 17, 1 << 15
    inputs = draw_inputs(1, 1, 3)
    P, Q, ratings = torch.zeros(1, 3).expand(m, 3), torch.zeros(1, 3).expand(n, 3), torch.zeros(1, n).expand(m, n)
    problem = checked(type(inputs)(P, Q, torch.zeros(m), torch.zeros(n), inputs.global_bias, ratings, None))
    call = plan_launches(problem, config.TARGETS["sm_80"], "ieee", False, True).calls[1]
    arguments = call.arguments | {"stride_rm": n}  # as ratings with memory of their own would have it
    types = [(name, _type(arguments.get(name), specialise=True)) for name in call.kernel.arg_names]
    constants = [(name, call.constants.get(name, arguments.get(name))) for name, type_ in types if type_ == "constexpr"]
    compiled = _compiled(call.kernel, "sm_80", tuple(types), tuple(constants), (), tuple(call.options.items()))
    multiplied = re.findall(r"arith\.muli %\w+, %\w+ : (\w+)", compiled.asm["ttir"])
    assert "i64" in multiplied
    strides = re.search(r"%(\w+) = arith\.extsi %stride_rm : i32 to i64", compiled.asm["ttir"])
    assert strides
    assert not re.search(r"muli [^:]*%stride_rm[^:]*: (tensor<\w+xi32>|i32)", compiled.asm["ttir"])


def test_compiles_beside_the_interpreter():
    inputs = aligned_inputs(m=20, n=16)
    before = plan_step(*inputs, precision="ieee", target="sm_80").launches[1].ptx
    mf_loss_and_grads(*inputs, backend="interpret")
    _compiled.cache_clear()
    assert plan_step(*inputs, precision="ieee", target="sm_80").launches[1].ptx == before


def test_refusals():
    inputs = aligned_inputs(m=20, n=16)
    with pytest.raises(ValueError, match=r"target: expected one of sm_80.*gfx1201, got 'sm_70'"):
        plan_step(*inputs, target="sm_70")
    with pytest.raises(ValueError, match="not shipped for sm_90: rank 1100: the largest is 1024"):
        plan_step(*draw_inputs(20, 16, 1100), target="sm_90")
    with pytest.raises(ValueError, match="not shipped for gfx942: precision tf32x3"):
        plan_step(*inputs, precision="tf32x3", target="gfx942")
    with pytest.raises(ValueError, match="precision: expected None or one of"):
        plan_step(*inputs, precision="fp8", target="sm_90")
    nobody = inputs._replace(
        user_factors=inputs.user_factors[:0], user_bias=inputs.user_bias[:0], ratings=inputs.ratings[:0], mask=None
    )
    with pytest.raises(ValueError, match="ratings: expected a CPU tensor with rows and columns"):
        plan_step(*nobody, target="sm_90")
