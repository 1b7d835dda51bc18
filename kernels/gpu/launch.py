"""Backend `triton`: the fused kernel on CUDA, ROCm and XPU tensors, on their device and its current stream."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from kernels.gpu import config
from kernels.problem import Grads, Problem

DECODES = True
DEVICES = ("cuda", "xpu")  # ROCm calls itself cuda


def unavailable(problem: Problem | None = None) -> str:
    """Why this backend cannot run the problem, or anything where it is None; empty where it can."""
    try:
        import triton  # noqa: F401
    except ImportError as error:
        return f"triton cannot be imported ({error})"
    if problem is None:
        present = any(getattr(torch, device).is_available() for device in DEVICES)
        return "" if present else "no CUDA, ROCm or XPU device"
    device = problem.ratings.device
    if device.type not in DEVICES:
        return f"the kernel takes CUDA, ROCm or XPU tensors, got {device}"
    try:
        config.pick(target_of(device), problem.shape[2], "ieee", problem.user_factors.element_size())
    except config.NotShipped as reason:
        return str(reason)
    return ""


@functools.cache
def target_of(device: torch.device) -> config.Target:
    """The target behind a device."""
    if device.type == "xpu":
        xpu = torch.xpu.get_device_properties(device)
        return config.Target("xpu", xpu.gpu_subslice_count, xpu.local_mem_size)
    gpu: Any = torch.cuda.get_device_properties(device)
    if torch.version.hip:
        return config.Target(gpu.gcnArchName.split(":")[0], gpu.multi_processor_count, 64 << 10)
    return config.Target(f"sm_{gpu.major}{gpu.minor}", gpu.multi_processor_count, gpu.shared_memory_per_block_optin)


def step(problem: Problem, precision: str, deterministic: bool, gradients: bool) -> tuple[Tensor, Grads | None]:
    """Loss (0-d float64) and, where asked for, gradients. Nothing here waits for the device."""
    from kernels.gpu.plan import COMPILE_OPTIONS, plan_step

    device = problem.ratings.device
    target = target_of(device)
    choice = config.pick(target, problem.shape[2], precision, problem.user_factors.element_size())
    with getattr(torch, device.type).device(device):
        plan = plan_step(problem, target, choice, deterministic, gradients)
        for call in plan.calls:
            options = {"num_warps": call.num_warps, "num_stages": call.num_stages, **COMPILE_OPTIONS}
            call.kernel[call.grid](**call.arguments, **call.constants, **options)
        return plan.result()
