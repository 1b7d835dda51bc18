"""Backend `interpret`: the fused kernel in Triton's interpreter, on CPU tensors. For checking, never for speed."""

from __future__ import annotations

import functools
import threading
import types
from typing import Any

from torch import Tensor

from kernels.csr import entries_for_a_kernel
from kernels.gpu import config
from kernels.gpu.version import is_old
from kernels.problem import Grads, Problem, check_memory

TARGET = config.Target("cpu", multiprocessors=1, shared_bytes=1 << 30)
_patching = threading.Lock()  # the interpreter replaces parts of triton.language while it runs


def unavailable(problem: Problem | None = None, precision: str = "ieee", deterministic: bool = False) -> str:
    """Return why this backend cannot run the problem, or anything on this machine if it is None; empty if it can."""
    try:
        import triton  # noqa: F401
    except ImportError as error:
        return f"triton cannot be imported ({error})"
    if problem is None:
        return ""
    if problem.device.type != "cpu":
        return f"the interpreter takes CPU tensors, got {problem.device}"
    return config.undecodable(problem.observations.mask)


def step(problem: Problem, precision: str, deterministic: bool, gradients: bool) -> tuple[Tensor, Grads | None]:
    """Return the loss (0-d float64) and, if requested, the gradients, in the parameters' dtype whatever the precision.

    Products of split operands are formed as on a device, but the halves are float32: the interpreter has no bfloat16.
    """
    from kernels.gpu.plan import plan_launches

    check_memory(problem)
    if problem.observations.sparse:
        problem = problem._replace(observations=entries_for_a_kernel(problem.observations))
    precision = "tf32x3" if precision in ("tf32x3", "bf16x3") else "ieee"
    plan = plan_launches(problem, TARGET, precision, deterministic, gradients)
    for call in plan.calls:
        run(call)
    return plan.result()


def run(call: Any) -> None:
    """Run one `calls.KernelCall` in the interpreter."""
    with _patching:
        interpreted(call.kernel)[call.grid](**call.arguments, **call.constants)


@functools.cache
def interpreted(kernel: Any) -> Any:
    """Return a second version of the kernel, for the interpreter.

    Triton decides when a function is decorated whether it is interpreted. The second version is made from the plain
    Python function and a copy of its globals, which leaves the compiled kernel and its module untouched.
    """
    from triton.runtime.interpreter import InterpretedFunction

    _accept_scalars_as_bounds()
    return InterpretedFunction(_rebound(kernel))


@functools.cache
def _accept_scalars_as_bounds() -> None:
    """Make `range(n)` of a kernel's scalar work in Triton 3.6 with NumPy 2.4 and later.

    That interpreter holds scalars in arrays of one entry, which NumPy no longer converts to int unless they have no
    dimension. Triton 3.9 squeezes them, as is done here.
    """
    from triton.runtime import interpreter

    if not is_old():
        return
    patch = interpreter._patch_lang_tensor

    def patch_with_index(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.squeeze()))

    interpreter._patch_lang_tensor = patch_with_index


def _rebound(kernel: Any) -> types.FunctionType:
    """Return the kernel's Python function, with interpreted versions of the jitted functions that it calls."""
    import triton.language as tl
    from triton.runtime.interpreter import InterpretedFunction
    from triton.runtime.jit import JITFunction

    def sum_of(values: Any, axis: int) -> Any:
        return tl.reduce(values, axis, tl.standard._sum_combine)  # the interpreter's own path to numpy.sum

    def cumsum_of(values: Any, axis: int) -> Any:
        return tl.associative_scan(values, axis, tl.standard._sum_combine)  # likewise numpy.cumsum

    def max_of(values: Any, axis: int) -> Any:
        return tl.reduce(values, axis, tl.standard._elementwise_max)  # likewise numpy.max

    replacements = {tl.sum: sum_of, tl.cumsum: cumsum_of, tl.max: max_of}
    plain = kernel.fn
    names = dict(plain.__globals__)
    for name in plain.__code__.co_names:
        value = names.get(name)
        if isinstance(value, JITFunction):
            names[name] = replacements.get(value) or InterpretedFunction(_rebound(value)).rewrite()
    twin = types.FunctionType(plain.__code__, names, plain.__name__, plain.__defaults__, plain.__closure__)
    twin.__annotations__ = plain.__annotations__
    return twin
