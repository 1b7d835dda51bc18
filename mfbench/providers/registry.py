"""Find providers by name, by entry point, or in a user's file."""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kernels import encode_ratings, mf_loss_and_grads
from kernels.loss import PRECISIONS
from mfbench.errors import UsageError
from mfbench.problems.cases import nearest
from mfbench.problems.inputs import Inputs
from mfbench.providers.exceptions import reason
from reference.autograd import notebook_loss, notebook_operands

Outputs = tuple[Any, Any]  # loss, gradients in parameter order
Step = Callable[[], Outputs]
Prepare = Callable[[Inputs], Step]

GROUP = "mfbench.providers"  # of entry points


class Provider(NamedTuple):
    """A way to compute loss and gradients."""

    name: str
    prepare: Prepare
    """Called once for a case; returns a step that evaluates the current contents of the inputs at each call."""


class Builtin(NamedTuple):
    """A provider that comes with this project."""

    description: str
    prepare: Prepare


def names() -> dict[str, str]:
    """Return the known providers with their descriptions."""
    builtin = {name: provider.description for name, provider in BUILTIN.items()}
    return builtin | {entry.name: f"from {entry.value}" for entry in entry_points(group=GROUP)}


def check(name: str, argument: str = "provider") -> None:
    """Check that a provider exists, as far as possible without running the user's code.

    Args:
        name: of the provider, or path/to/file.py:function.
        argument: where the name came from, for the error.

    Raises:
        UsageError: there is none.
    """
    path, colon, _ = name.rpartition(".py:")
    if colon:
        if not Path(f"{path}.py").is_file():
            raise UsageError(f"no file {path}.py", code="no-such-provider", argument=argument)
    elif name.endswith(".py"):
        message = f"expected a function of {name}, as {name}:FUNCTION"
        raise UsageError(message, code="no-such-function", argument=argument)
    elif name not in (known := names()):
        message = f"no provider {name!r}, nor path/to/file.py:function{nearest(name, known)}"
        raise UsageError(message, code="no-such-provider", argument=argument)


def load(name: str) -> Provider:
    """Return a provider by its name or as `path/to/file.py:function`.

    Raises:
        UsageError: no such provider, file or function.
    """
    if name in BUILTIN:
        return Provider(name, BUILTIN[name].prepare)
    for entry in entry_points(group=GROUP, name=name):
        return Provider(name, _calling(entry.load()))
    check(name)
    return Provider(name, _calling(_function_from_file(name)))


def _calling(function: Callable[..., Outputs], **options: Any) -> Prepare:
    return lambda inputs: functools.partial(function, *inputs, **options)


def _function_from_file(name: str) -> Callable[..., Outputs]:
    path, _, function = name.rpartition(".py:")
    path += ".py"
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec is not None  # a .py file always has a spec and a loader
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(Path(path).resolve().parent))  # for imports of the files beside it
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        message = f"{path} cannot be imported: {reason(error)}"
        raise UsageError(message, code="provider-load-failed", argument="provider") from error
    if not callable(getattr(module, function, None)):
        functions = [name for name, value in vars(module).items() if callable(value) and name[0] != "_"]
        message = f"{path} has no function {function!r}{nearest(function, functions)}"
        raise UsageError(message, code="no-such-function", argument="provider")
    return getattr(module, function)


def _prepare_encoded(inputs: Inputs) -> Step:
    encoded = encode_ratings(inputs.ratings, inputs.mask)
    return functools.partial(mf_loss_and_grads, *inputs[:5], encoded, reg=inputs.reg)


def _prepare_autograd(inputs: Inputs, compiled: bool = False) -> Step:
    ratings, mask = notebook_operands(inputs.ratings, inputs.mask, inputs.user_factors.dtype)
    parameters = [parameter.detach().requires_grad_() for parameter in inputs[:5]]
    p, q, bu, bi, u = parameters
    loss_function = torch.compile(notebook_loss, dynamic=False) if compiled else notebook_loss

    def step() -> Outputs:
        loss = loss_function(p, q, bu, bi, u, ratings, mask, inputs.reg)
        return loss.detach(), torch.autograd.grad(loss, parameters)

    return step


def _prepare_closed_form(inputs: Inputs) -> Step:
    """Write out the gradients, in place where that saves a temporary."""
    P, Q, user_bias, item_bias, mu, R, mask, reg = inputs
    bu, bi = user_bias.view(-1, 1), item_bias.view(-1, 1)
    missing = torch.isnan(R) if mask is None else mask == 0
    ratings = R.to(P.dtype)
    weighted = mask is not None and inputs.weighted and not torch.equal(mask, ~missing)
    weights = mask.to(P.dtype) if mask is not None and weighted else None

    def step() -> Outputs:
        E = torch.addmm(bi.T + mu, P, Q.T).add_(bu).sub_(ratings).masked_fill_(missing, 0)
        if weights is not None:
            E *= weights
        G = E if weights is None else E * weights
        rows, columns = G.sum(dim=1, keepdim=True), G.sum(dim=0).unsqueeze(1)
        grads: tuple[Tensor, ...] = (
            2 * torch.addmm(reg * P, G, Q),
            2 * torch.addmm(reg * Q, G.T, P),
            2 * (rows + reg * bu).view_as(user_bias),
            2 * (columns + reg * bi).view_as(item_bias),
            2 * rows.sum().view_as(mu),
        )
        squares = E.square_().sum(dtype=torch.float64)
        return squares + reg * sum(parameter.square().sum() for parameter in (P, Q, bu, bi)), grads

    return step


BUILTIN = {
    "fused": Builtin("this project: the device's fused kernel", _calling(mf_loss_and_grads)),
    "fused-deterministic": Builtin("the same, bitwise repeatable", _calling(mf_loss_and_grads, deterministic=True)),
    "fused-encoded": Builtin("the same, on ratings encoded beforehand in the fewest bytes", _prepare_encoded),
    **{
        f"fused-{precision}": Builtin(
            f"the same with {precision} products", _calling(mf_loss_and_grads, precision=precision)
        )
        for precision in PRECISIONS
    },
    "tiled": Builtin(
        "the same pass as a loop over tiles in plain PyTorch, without a compiler",
        _calling(mf_loss_and_grads, backend="torch"),
    ),
    "autograd": Builtin("the notebook's expressions, eager, and backward()", _prepare_autograd),
    "compile": Builtin(
        "torch.compile of the notebook's expressions, and backward()",
        functools.partial(_prepare_autograd, compiled=True),
    ),
    "closed-form": Builtin("three matrix products and elementwise operations, no autograd", _prepare_closed_form),
}
