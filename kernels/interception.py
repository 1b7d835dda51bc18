"""What stands between a call and the kernel: modes, tracers and transforms that PyTorch has switched on."""

from __future__ import annotations

from torch._C import _get_tracing_state, _is_any_autocast_enabled, _len_torch_dispatch_stack
from torch._C._functorch import CInterpreter, peek_interpreter_stack
from torch.autograd import forward_ad

from kernels import flops
from kernels.admission import has_plain_types
from kernels.call import Call


def is_ordinary(call: Call) -> bool:
    """Return whether the call may bypass the dispatcher: plain tensors, and nothing that listens or casts."""
    return not (
        _len_torch_dispatch_stack()
        or peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
        or _is_any_autocast_enabled()
        or _get_tracing_state() is not None
    ) and has_plain_types(call)


def is_transformed() -> bool:
    """Return whether a transform of `torch.func`, or forward-mode differentiation, is in progress."""
    transform = peek_interpreter_stack()  # torch.compile knows its type alone
    return isinstance(transform, CInterpreter) or forward_ad._current_level >= 0


def is_intercepted(call: Call) -> bool:
    """Return whether a dispatch mode, a tracer, or a tensor's own rule must see the operator."""
    if _len_torch_dispatch_stack():
        flops.register()
        return True
    return _get_tracing_state() is not None or not has_plain_types(call)
