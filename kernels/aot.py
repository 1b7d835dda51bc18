"""What a launch would be, with no GPU present: the step's compiled kernels, grids and arguments for a named target."""

from __future__ import annotations

import functools
import re
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kernels.encoding import EncodedRatings
from kernels.gpu import config
from kernels.loss import resolve_precision, unwrap
from kernels.problem import Grads, check_problem


@dataclass(frozen=True)
class Launch:
    """One kernel launch: what the device would be given, and what the compiler made of it."""

    name: str
    grid: tuple[int, int, int]
    num_warps: int
    shared_bytes: int
    registers: int  # a thread; for gfx targets vector and accumulator registers together
    stack_bytes: int  # a thread, spills included
    ptx: str | None
    cubin: bytes | None
    amdgcn: str | None
    hsaco: bytes | None
    args: list[Tensor | int]  # in the order of the compiled kernel's parameters; null pointers are 0
    constants: dict[str, Any]  # compiled in, by name: tile sizes, precision, ...

    @property
    def sass(self) -> str | None:
        """Disassembly of `cubin`, None for gfx targets."""
        return None if self.cubin is None else _on_cubin("nvdisasm", self.cubin, "-c")


@dataclass(frozen=True)
class StepPlan:
    """The launches of one step, in order; `result()` reads loss and gradients once something has executed them."""

    launches: list[Launch]
    result: Callable[[], tuple[Tensor, Grads | None]]


def plan_step(
    user_factors: Tensor,
    item_factors: Tensor,
    user_bias: Tensor,
    item_bias: Tensor,
    global_bias: Tensor,
    ratings: Tensor | EncodedRatings,
    mask: Tensor | None = None,
    reg: float = 0.1,
    precision: str | None = None,
    deterministic: bool = False,
    target: str = "sm_90",
) -> StepPlan:
    """The step of `mf_loss_and_grads` as backend `triton` would launch it on `target`, compiled for it.

    Args:
        As for `mf_loss_and_grads`, on the CPU, none of the sizes 0.
        target: "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120", "gfx90a", "gfx942", "gfx950", "gfx1100"
            or "gfx1201".

    Raises:
        TypeError, ValueError: as `mf_loss_and_grads`; no target has that name; or
            "not shipped for TARGET: reason" where there is no clean build.
        RuntimeError: triton cannot be imported.
    """
    if target not in config.TARGETS:
        raise ValueError(f"target: expected one of {', '.join(config.TARGETS)}, got {target!r}")
    ratings, mask, encoding = unwrap(ratings, mask)
    parameters = (user_factors, item_factors, user_bias, item_bias, global_bias)
    problem = check_problem(*parameters, ratings, mask, reg, *encoding)
    if problem.ratings.device.type != "cpu" or 0 in problem.shape:
        raise ValueError(f"ratings: expected a CPU tensor with rows and columns, got {problem.ratings.device}, "
                         f"shape {tuple(problem.ratings.shape)}, rank {problem.shape[2]}")  # fmt: skip
    try:
        from kernels.gpu import plan
    except ImportError as error:
        raise RuntimeError(f"a launch plan needs triton, which cannot be imported ({error})") from error

    device, precision = config.TARGETS[target], resolve_precision(precision)
    try:
        step = plan.plan_step(problem, device, precision, deterministic, gradients=True)
    except config.NotShipped as reason:
        raise ValueError(f"not shipped for {target}: {reason}") from reason
    return StepPlan([_launch(call, device) for call in step.calls], step.result)


def _launch(call: Any, target: config.Target) -> Launch:
    types, constants, aligned, args = {}, dict(call.constants), [], []
    for name in call.kernel.arg_names:
        value = call.arguments.get(name)
        specialise = name not in call.kernel.do_not_specialize
        types[name] = _type(value, specialise)
        if types[name] != "constexpr":
            args.append(value)
            if specialise and (value.data_ptr() if isinstance(value, Tensor) else value) % 16 == 0:
                aligned.append(name)
        elif name in call.arguments:
            constants[name] = value
    compiled = _compiled(
        call.kernel, target.name, tuple(types.items()), tuple(constants.items()), tuple(aligned),
        tuple(call.options.items()),
    )  # fmt: skip
    asm, metadata = compiled.asm, compiled.metadata
    registers, stack_bytes, parameters = _resources(target.backend, asm)
    args += [0] * (parameters - len(args))  # Triton's own scratch buffers, which the kernel does not use
    return Launch(
        metadata.name, (*call.grid, 1), metadata.num_warps, metadata.shared, registers, stack_bytes,
        asm.get("ptx"), asm.get("cubin"), asm.get("amdgcn"), asm.get("hsaco"), args, constants,
    )  # fmt: skip


def _type(value: Any, specialise: bool) -> str:
    """An argument's type in Triton's signatures, as a launch would specialise on its value."""
    if isinstance(value, Tensor):
        return f"*{_TYPES[value.dtype]}"
    if value is None or (specialise and value == 1):
        return "constexpr"
    return "i32" if -(2**31) <= value < 2**31 else "i64"


_TYPES = {
    torch.float64: "fp64", torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16",
    torch.uint8: "u8", torch.uint16: "u16", torch.uint32: "u32", torch.uint64: "u64",
    torch.int8: "i8", torch.int16: "i16", torch.int32: "i32", torch.int64: "i64",
}  # fmt: skip


@functools.cache
def _compiled(
    kernel: Any,
    target: str,
    types: tuple[tuple[str, str], ...],
    constants: tuple[tuple[str, Any], ...],
    aligned: tuple[str, ...],
    options: tuple[tuple[str, Any], ...],
) -> Any:
    """Triton's compiled kernel: `types` of all parameters by name, values of the constants, names divisible by 16."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    if target.startswith("sm_"):
        gpu = GPUTarget("cuda", int(target.removeprefix("sm_")), 32)
    else:
        gpu = GPUTarget("hip", target, 64 if target.startswith("gfx9") else 32)
    signature, attributes = dict(types), {}
    for name in aligned:
        attribute = [["tt.divisibility", 16]]
        if gpu.backend == "hip" and signature[name].startswith("*"):
            attribute.append(["tt.pointer_range", 32])
        attributes[(kernel.arg_names.index(name),)] = attribute
    source = ASTSource(kernel, signature, dict(constants), attributes)
    return triton.compile(source, target=gpu, options=dict(options))


def _resources(backend: str, asm: dict[str, Any]) -> tuple[int, int, int]:
    """Registers and stack bytes of a thread, and the number of parameters, as the compiled code states them."""
    if backend == "cuda":
        usage = _on_cubin("cuobjdump", asm["cubin"], "--dump-resource-usage")
        header = asm["ptx"].split(".entry", 1)[1].split("{", 1)[0]
        return _number(r"REG:(\d+)", usage), _number(r"STACK:(\d+)", usage), header.count(".param")
    text = asm["amdgcn"]
    registers = _number(r"\.vgpr_count:\s+(\d+)", text)
    arguments = text.split(".amdgpu_metadata", 1)[1].split(".group_segment_fixed_size", 1)[0]
    visible = re.findall(r"\.value_kind:\s+(?!hidden)\w+", arguments)
    return registers, _number(r"\.private_segment_fixed_size:\s+(\d+)", text), len(visible)


def _number(pattern: str, text: str) -> int:
    match = re.search(pattern, text)
    if match is None:
        raise RuntimeError(f"the compiler's output has no {pattern}")
    return int(match[1])


@functools.lru_cache(maxsize=8)
def _on_cubin(tool: str, cubin: bytes, option: str) -> str:
    """What one of the CUDA tools in Triton's wheel says of a cubin."""
    from triton import knobs

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [getattr(knobs.nvidia, tool).path, option, file.name]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
