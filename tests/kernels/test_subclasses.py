"""No pointer is read of a tensor that has no memory: subclasses, fake and meta tensors, freed storages."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest
import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.masked import masked_tensor

from kernels import backends, mf_loss, mf_loss_and_grads, mf_sse
from tests.problems import draw_inputs

FUNCTIONS = [mf_loss, mf_loss_and_grads, mf_sse]
EACH_BACKEND = pytest.mark.parametrize(
    "backend", [name for name in ("native", "torch", "interpret") if backends()[name].available]
)
NAMES = ["user_factors", "item_factors", "user_bias", "item_bias", "global_bias", "ratings", "mask"]
INPUTS = draw_inputs(5, 7, 3)
GOOD = dict(zip(NAMES, INPUTS[:7], strict=True))


def loss_of(function, **changed):
    result = function(**GOOD | changed)
    return result[0] if isinstance(result, tuple) else result


def run(code):
    """Run code in a new process, where it is the first to use the kernels."""
    problem = """
        import torch, kernels
        def problem(device="cpu"):
            shapes = (5, 3), (7, 3), (5,), (7,), (1,), (5, 7)
            return [torch.full(shape, 0.5, device=device) for shape in shapes]
        def loss(**options):
            return kernels.mf_loss(*problem(), **options).item()
        RIGHT = 35 * (3 * 0.25 + 3 * 0.5 - 0.5) ** 2 + 0.1 * 0.25 * (15 + 21 + 12)
    """
    command = [sys.executable, "-c", textwrap.dedent(problem) + textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(
    "first_use",
    [
        "torch.set_default_device('meta')",
        "torch.set_default_device('meta'); kernels.backends(); torch.set_default_device('cpu')",
        "import torch.utils._device; torch.utils._device.DeviceContext('meta').__enter__()",
        "from torch._subclasses.fake_tensor import FakeTensorMode\nwith FakeTensorMode(): kernels.mf_loss(*problem())",
        "from torch._subclasses.fake_tensor import FakeTensorMode\nwith FakeTensorMode(): kernels.backends()",
    ],
)
def test_a_first_use_under_another_device_or_a_mode(first_use):
    run(f"{first_use}\nassert abs(loss() - RIGHT) < 1e-3, loss()\nassert abs(loss(backend='torch') - RIGHT) < 1e-3")


@EACH_BACKEND
@pytest.mark.parametrize("function", FUNCTIONS)
def test_fake_tensors_give_fake_results(backend, function):
    with FakeTensorMode() as mode:
        fake = {name: mode.from_tensor(value) for name, value in GOOD.items()}
        loss = loss_of(function, **fake, backend=backend)
    assert (type(loss).__name__, loss.shape, loss.dtype) == ("FakeTensor", (), torch.float64)


@EACH_BACKEND
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("name", NAMES)
def test_a_subclass_without_memory_is_named(backend, function, name):
    masked = masked_tensor(GOOD[name].float(), torch.ones_like(GOOD[name], dtype=torch.bool))
    with pytest.raises(TypeError, match=f"^{name}: expected a plain torch.Tensor, got MaskedTensor"):
        function(**GOOD | {name: masked}, backend=backend)


@EACH_BACKEND
@pytest.mark.parametrize("name", NAMES[:6])
def test_a_freed_storage_is_named(backend, name):
    for start in (0, 8, 1 << 20):  # a view still points to its offset, near address 0 or far from it
        freed = torch.zeros(GOOD[name].numel() + start)[start:].view(GOOD[name].shape)
        freed.untyped_storage().resize_(0)
        with pytest.raises(ValueError, match=f"^{name}: expected a tensor with memory, got one with an empty storage"):
            mf_sse(**GOOD | {name: freed}, backend=backend)


class Wrapper(torch.Tensor):
    """Wraps another tensor and owns no memory."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

    @classmethod
    def __torch_dispatch__(cls, function, types, arguments=(), options=None):
        raise NotImplementedError


OTHERS = {  # how they are made, and what the error calls them
    "wrapper": (Wrapper, "Wrapper, a subclass of unknown layout"),
    "negated": (lambda value: torch._neg_view(value.float()), "a lazily negated one, see resolve_neg"),
    "nested": (lambda value: torch.nested.nested_tensor([value, value]), "a nested one"),
    "jagged": (
        lambda value: torch.nested.nested_tensor([value.reshape(-1)], layout=torch.jagged),
        "(a nested one|torch.jagged)",
    ),
    "uninitialized": (lambda value: torch.nn.UninitializedParameter(), "an uninitialized one of a lazy module"),
    "mkldnn": (lambda value: value.float().to_mkldnn(), "torch._mkldnn"),
    "meta": (lambda value: value.to("meta"), "meta"),
}


@EACH_BACKEND
@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("name", NAMES[1:])
def test_other_tensors_without_plain_memory_are_named(backend, kind, name):
    make, came = OTHERS[kind]
    with pytest.raises((TypeError, ValueError), match=rf"^{name}: expected .*, got {came}"):
        mf_loss(**GOOD | {name: make(GOOD[name])}, backend=backend)


@EACH_BACKEND
def test_a_tensor_of_zeros_without_memory_is_named(backend):
    zeros = torch._efficientzerotensor(5)
    with pytest.raises(ValueError, match=r"^user_bias: expected a tensor with memory"):
        mf_loss(**GOOD | {"user_bias": zeros}, backend=backend)


@EACH_BACKEND
@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_subclass_with_memory_is_a_tensor(backend, function):
    class Named(torch.Tensor):
        """What libraries derive to attach metadata."""

    expected = loss_of(function, backend=backend)
    for name in NAMES:
        assert torch.equal(loss_of(function, **{name: GOOD[name].as_subclass(Named)}, backend=backend), expected)
    leaf = GOOD["user_factors"].clone().as_subclass(Named).requires_grad_()
    mf_loss(**GOOD | {"user_factors": leaf}, backend=backend).backward()
    _, grads = mf_loss_and_grads(**GOOD, backend=backend)
    assert torch.equal(torch.Tensor(leaf.grad), grads.user_factors)


@pytest.fixture(scope="module")
def one_process():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield torch.distributed.device_mesh.init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


@EACH_BACKEND
@pytest.mark.parametrize("function", FUNCTIONS)
def test_distributed_tensors(one_process, backend, function):
    from torch.distributed._functional_collectives import AsyncCollectiveTensor, all_gather_tensor
    from torch.distributed.tensor import distribute_tensor

    for name in NAMES:
        whole = distribute_tensor(GOOD[name], one_process)
        with pytest.raises(TypeError, match=f"^{name}: expected a plain torch.Tensor, got DTensor"):
            function(**GOOD | {name: whole}, backend=backend)
    gathered = all_gather_tensor(GOOD["user_factors"], 0, dist.group.WORLD)
    assert isinstance(gathered, AsyncCollectiveTensor)
    expected = loss_of(function, backend=backend)
    assert torch.equal(loss_of(function, user_factors=gathered, backend=backend), expected)


def test_parameters_of_a_sharded_module(one_process):
    from torch.distributed.fsdp import fully_shard

    model = fully_shard(torch.nn.Linear(3, 7, bias=False), mesh=one_process)
    with pytest.raises(TypeError, match=r"^item_factors: expected a plain torch.Tensor, got DTensor"):
        mf_loss(**GOOD | {"item_factors": model.weight})
    local = model.weight.to_local()
    assert loss_of(mf_loss, item_factors=local) == loss_of(mf_loss, item_factors=local.detach().clone())
