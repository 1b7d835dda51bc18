"""Backend `triton`: the fused kernel on CUDA, ROCm and XPU tensors, on their device and its current stream."""

from __future__ import annotations

import functools
import threading
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kernels.csr import entries_for_a_kernel
from kernels.gpu import config, tune
from kernels.gpu.sparse_config import pick_sparse
from kernels.problem import Grads, Problem, check_memory

if TYPE_CHECKING:
    from kernels.gpu.compiled import CompiledStep  # imports triton

DEVICES = ("cuda", "xpu")  # PyTorch calls ROCm devices cuda
UNCHANGED = nullcontext()
KEPT = 64  # compiled steps: one for each layout of a problem and choice of options


def unavailable(problem: Problem | None = None, precision: str = "ieee", deterministic: bool = False) -> str:
    """Return why this backend cannot run the problem, or anything on this machine if it is None; empty if it can."""
    try:
        import triton  # noqa: F401
    except ImportError as error:
        return f"triton cannot be imported ({error})"
    if problem is None:
        present = any(getattr(torch, device).is_available() for device in DEVICES)
        return "" if present else "no CUDA, ROCm or XPU device"
    device = problem.device
    if device.type not in DEVICES:
        return f"the kernel takes CUDA, ROCm or XPU tensors, got {device}"
    _, rank = problem.parameters[0].shape
    sparse, itemsize = problem.observations.sparse, problem.dtype.itemsize
    reason = _not_shipped(target_of(device), sparse, rank, precision, deterministic, itemsize)
    return reason or config.undecodable(problem.observations.mask)


@functools.lru_cache
def _not_shipped(
    target: config.Target, sparse: bool, rank: int, precision: str, deterministic: bool, itemsize: int
) -> str:
    """Return why there is no clean build for a target; empty if there is one."""
    try:
        if sparse:
            pick_sparse(target, rank, deterministic, itemsize)
        else:
            config.pick(target, rank, precision, deterministic, itemsize)
    except config.NotShipped as reason:
        return f"not shipped for {target.name}: {reason}"
    return ""


@functools.cache
def target_of(device: torch.device) -> config.Target:
    """Return the target of a device."""
    if device.type == "xpu":
        xpu = torch.xpu.get_device_properties(device)
        return config.Target("xpu", xpu.gpu_subslice_count, xpu.local_mem_size)
    gpu: Any = torch.cuda.get_device_properties(device)
    if torch.version.hip:
        return config.Target(gpu.gcnArchName.split(":")[0], gpu.multi_processor_count, 64 << 10)
    return config.Target(f"sm_{gpu.major}{gpu.minor}", gpu.multi_processor_count, gpu.shared_memory_per_block_optin)


def step(problem: Problem, precision: str, deterministic: bool, gradients: bool) -> tuple[Tensor, Grads | None]:
    """Return the loss (0-d float64) and, if requested, the gradients.

    Only a first tuning and the check of sparse indices wait for the device: on every call of a raw tensor, once of
    encoded ratings.

    Raises:
        ValueError: an index of sparse ratings is out of range or repeated.
    """
    check_memory(problem)
    device, sparse = problem.device, problem.observations.sparse
    if sparse:
        problem = problem._replace(observations=entries_for_a_kernel(problem.observations))
    tuned = tune.enabled() and not (deterministic or sparse or _capturing(device))
    target = target_of(device)
    key = (device, target, precision, deterministic, gradients, tuned, *layout_of(problem))
    with _current(device):
        if compiled := _compiled.get(key):
            return compiled(problem, gradients)
        select = {"select": tune.selector(target, precision, functools.partial(_seconds, target, precision))}
        return _first_step(problem, key, select if tuned else {})


def layout_of(problem: Problem) -> list[Any]:
    """Return what a plan and its compiled kernels depend on: shapes, strides, dtypes and alignment of all tensors."""
    return [
        (value.shape, value.stride(), value.dtype, value.data_ptr() % 16) if isinstance(value, Tensor) else value
        for value in (*problem.parameters, *problem.observations)
    ]


def _current(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which a device is the current one: PyTorch's, which takes microseconds, only if it is not."""
    module = getattr(torch, device.type)
    return UNCHANGED if module.current_device() == device.index else module.device(device)


_compiled: dict[Any, CompiledStep] = {}  # by device, options and layout
_storing = threading.Lock()


def _first_step(problem: Problem, key: Any, select: dict[str, Any]) -> tuple[Tensor, Grads | None]:
    """Evaluate a step, and keep its compiled kernels for others of the same layout."""
    from kernels.gpu.calls import bind
    from kernels.gpu.compiled import CompiledStep
    from kernels.gpu.plan import plan_step

    _, target, precision, deterministic, gradients, *_ = key
    plan = plan_step(problem, target, precision, deterministic, gradients, **select)
    bound = bind(plan, problem, gradients)
    kernels = [_launch(call) for call in bound.calls]
    if all(hasattr(kernel, "__getitem__") for kernel in kernels):
        with _storing:
            if len(_compiled) >= KEPT:
                del _compiled[next(iter(_compiled))]
            _compiled[key] = CompiledStep(plan, kernels)
    return bound.result()


def _launch(call: Any) -> Any:
    """Compile and launch a kernel by Triton's own path, which binds and inspects every argument."""
    return call.kernel[call.grid](**call.arguments, **call.constants, **call.options)


def _capturing(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def _seconds(target: config.Target, precision: str, problem: Problem, build: config.Config) -> float:
    """Return the median time of the pass with that build, infinite if it spills or does not fit."""
    from triton.runtime.errors import OutOfResources
    from triton.testing import do_bench

    from kernels.gpu.plan import plan_launches

    prepare, step, _ = plan_launches(problem, target, precision, False, True, select=lambda _, __: build).calls
    try:
        _launch(prepare)
        if _launch(step).n_spills:
            return float("inf")
        return float(do_bench(lambda: _launch(step), return_mode="median")) * 1e-3
    except OutOfResources:
        return float("inf")
