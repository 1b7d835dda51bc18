"""Ahead-of-time launch plans: the step's compiled kernels, grids and arguments for a named target, without a GPU."""

from __future__ import annotations

import functools
import inspect
import re
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kernels.csr import entries_for_a_kernel
from kernels.decoding import check_exact
from kernels.encoded import observations_of
from kernels.gpu import config
from kernels.loss import mf_loss_and_grads
from kernels.precision import resolve_precision
from kernels.problem import Grads, check_problem


@dataclass(frozen=True)
class Launch:
    """One kernel launch: what the device would receive, and what the compiler produced."""

    name: str
    grid: tuple[int, int, int]
    num_warps: int
    shared_bytes: int
    registers: int  # per thread; for gfx targets vector and accumulator registers together
    stack_bytes: int  # per thread, spills included
    ptx: str | None
    cubin: bytes | None
    amdgcn: str | None
    hsaco: bytes | None
    args: list[Tensor | int | float]  # in the order of the compiled kernel's parameters; null pointers are 0
    constants: dict[str, Any]  # compile-time constants by name: tile sizes, precision, ...

    @property
    def sass(self) -> str | None:
        """The disassembly of `cubin`, None for gfx targets."""
        return None if self.cubin is None else _on_cubin("nvdisasm", self.cubin, "-c")


@dataclass(frozen=True)
class StepPlan:
    """The launches of one step, in order; `result()` reads loss and gradients after something has executed them."""

    launches: list[Launch]
    result: Callable[[], tuple[Tensor, Grads | None]]


def _signature() -> inspect.Signature:
    step = inspect.signature(mf_loss_and_grads)
    shared = [parameter for name, parameter in step.parameters.items() if name != "backend"]
    target = inspect.Parameter("target", inspect.Parameter.POSITIONAL_OR_KEYWORD, default="sm_90", annotation="str")
    return step.replace(parameters=[*shared, target], return_annotation="StepPlan")


SIGNATURE = _signature()  # of `plan_step`


def plan_step(*args: Any, **kwargs: Any) -> StepPlan:
    """Return the step of `mf_loss_and_grads` as backend `triton` would launch it on `target`, compiled for it.

    Args:
        Those of `mf_loss_and_grads` without `backend`, on the CPU, no size 0; and
        target: "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120", "gfx90a", "gfx942", "gfx950", "gfx1100"
            or "gfx1201".

    Raises:
        TypeError, ValueError: as `mf_loss_and_grads`; no target has that name; or
            "not shipped for TARGET: reason" where there is no clean build.
        RuntimeError: triton cannot be imported.
    """
    return _plan("plan_step", args, kwargs, gradients=True)


def plan_loss(*args: Any, **kwargs: Any) -> StepPlan:
    """Return the loss alone, as `mf_loss` without gradients. Arguments and errors are those of `plan_step`."""
    return _plan("plan_loss", args, kwargs, gradients=False)


vars(plan_step)["__signature__"] = vars(plan_loss)["__signature__"] = SIGNATURE


def _plan(function: str, args: tuple[Any, ...], kwargs: dict[str, Any], gradients: bool) -> StepPlan:
    try:
        bound = SIGNATURE.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{function}() {error}") from None
    bound.apply_defaults()
    parameters, (ratings, mask, reg, precision, deterministic, target) = bound.args[:5], bound.args[5:]
    if target not in config.TARGETS:
        raise ValueError(f"target: expected one of {', '.join(config.TARGETS)}, got {target!r}")
    problem = check_problem(parameters, observations_of(ratings, mask), reg)
    if problem.device.type != "cpu" or 0 in problem.shape:
        raise ValueError(f"ratings: expected a CPU tensor with rows and columns, got {problem.device}, "
                         f"shape {tuple(problem.observations.shape)}, rank {problem.shape[2]}")  # fmt: skip
    check_exact(problem.observations, problem.dtype)
    try:
        from kernels.gpu import plan
    except ImportError as error:
        raise RuntimeError(f"a launch plan needs triton, which cannot be imported ({error})") from error

    device, precision = config.TARGETS[target], resolve_precision(precision)
    try:
        if problem.observations.sparse:
            problem = problem._replace(observations=entries_for_a_kernel(problem.observations))
        step = plan.plan_launches(problem, device, precision, deterministic, gradients)
    except config.NotShipped as reason:
        raise ValueError(f"not shipped for {target}: {reason}") from reason
    return StepPlan([_launch(call, device) for call in step.calls], step.result)


def _launch(call: Any, target: config.Target) -> Launch:
    types, constants, aligned, args = {}, dict(call.constants), [], []
    for name in call.kernel.arg_names:
        value = call.arguments.get(name)
        specialise = name not in call.kernel.do_not_specialize and not isinstance(value, float)
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
    args += [0] * (parameters - len(args))  # Triton's own scratch buffers, unused by these kernels
    return Launch(
        metadata.name, (*call.grid, 1), metadata.num_warps, metadata.shared, registers, stack_bytes,
        asm.get("ptx"), asm.get("cubin"), asm.get("amdgcn"), asm.get("hsaco"), args, constants,
    )  # fmt: skip


def _type(value: Any, specialise: bool) -> str:
    """Return an argument's type in Triton's notation, as a launch would specialise on its value."""
    if isinstance(value, Tensor):
        return f"*{_TYPES[value.dtype]}"
    if value is None or (specialise and value == 1):
        return "constexpr"
    if isinstance(value, float):
        return "fp64"  # as the kernels declare
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
    """Compile a kernel.

    Args:
        types: of all parameters by name, in Triton's notation.
        constants: values of the compile-time constants by name.
        aligned: names of the parameters whose values are divisible by 16.
    """
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
    """Return registers and stack bytes per thread, and the number of parameters, as stated by the compiled code."""
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
    """Return the output of one of the CUDA tools in Triton's wheel for a cubin."""
    from triton import knobs

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [getattr(knobs.nvidia, tool).path, option, file.name]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
