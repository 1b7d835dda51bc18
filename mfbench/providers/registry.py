"""Providers: who takes part in a measurement, by name, by entry point, or from a file of the user's."""

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


class Provider(NamedTuple):
    """A way to compute loss and gradients."""

    name: str
    prepare: Callable[[Inputs], Step]
    """Once a case: a step that evaluates the present contents of the inputs at each call."""


def names() -> dict[str, str]:
    """The providers known by name, with what each is."""
    described = {
        "fused": "this project: the fused kernel of the device",
        "fused-deterministic": "the same, bitwise repeatable",
        "fused-encoded": "the same, on ratings that were encoded beforehand in the fewest bytes",
        **{f"fused-{precision}": f"the same with {precision} products" for precision in PRECISIONS},
        "tiled": "the same pass as a loop of tiles in plain PyTorch, which needs no compiler",
        "autograd": "the notebook's expressions, eager, and backward()",
        "compile": "torch.compile of the notebook's expressions, and backward()",
        "closed-form": "three matrix products and elementwise operations, no autograd",
    }
    return described | {entry.name: f"from {entry.value}" for entry in entry_points(group="mfbench.providers")}


def check(name: str, option: str = "--provider") -> None:
    """Whether there is such a provider, as far as can be told without running the user's code.

    Raises:
        UsageError: there is none.
    """
    path, colon, _ = name.rpartition(".py:")
    if colon:
        if not Path(f"{path}.py").is_file():
            raise UsageError(f"{option}: no file {path}.py")
    elif name.endswith(".py"):
        raise UsageError(f"{option}: expected a function of {name}, as {name}:FUNCTION")
    elif name not in names():
        raise UsageError(f"{option}: no provider {name!r}, nor path/to/file.py:function{nearest(name, names())}")


def load(name: str) -> Provider:
    """A provider by its name or as `path/to/file.py:function`.

    Raises:
        UsageError: no such provider, file or function.
    """
    if name in ("autograd", "compile"):
        return Provider(name, functools.partial(_prepare_autograd, compiled=name == "compile"))
    if name == "closed-form":
        return Provider(name, _prepare_closed_form)
    if name == "fused":
        return Provider(name, _prepared(mf_loss_and_grads))
    if name == "fused-deterministic":
        return Provider(name, _prepared(mf_loss_and_grads, deterministic=True))
    if name == "fused-encoded":
        return Provider(name, _prepare_encoded)
    if name == "tiled":
        return Provider(name, _prepared(mf_loss_and_grads, backend="torch"))
    if name.removeprefix("fused-") in PRECISIONS:
        return Provider(name, _prepared(mf_loss_and_grads, precision=name.removeprefix("fused-")))
    for entry in entry_points(group="mfbench.providers", name=name):
        return Provider(name, _prepared(entry.load()))
    check(name)
    return Provider(name, _prepared(_function_from_file(name)))


def _prepared(function: Callable[..., Outputs], **options: Any) -> Callable[[Inputs], Step]:
    return lambda inputs: functools.partial(function, *inputs, **options)


def _prepare_encoded(inputs: Inputs) -> Step:
    encoded = encode_ratings(inputs.ratings, inputs.mask)
    return functools.partial(mf_loss_and_grads, *inputs[:5], encoded, reg=inputs.reg)


def _function_from_file(name: str) -> Callable[..., Outputs]:
    path, _, function = name.rpartition(".py:")
    path += ".py"
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec is not None  # a .py file always has a spec and a loader
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(Path(path).resolve().parent))  # what lies beside the file can be imported
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UsageError(f"--provider: {path} cannot be imported: {reason(error)}") from error
    if not callable(getattr(module, function, None)):
        functions = [name for name, value in vars(module).items() if callable(value) and name[0] != "_"]
        raise UsageError(f"--provider: {path} has no function {function!r}{nearest(function, functions)}")
    return getattr(module, function)


def _prepare_autograd(inputs: Inputs, compiled: bool) -> Step:
    ratings, mask = notebook_operands(inputs.ratings, inputs.mask)
    parameters = [parameter.detach().requires_grad_() for parameter in inputs[:5]]
    p, q, bu, bi, u = parameters
    loss_function = torch.compile(notebook_loss, dynamic=False) if compiled else notebook_loss

    def step() -> Outputs:
        loss = loss_function(p, q, bu, bi, u, ratings, mask, inputs.reg)
        return loss.detach(), torch.autograd.grad(loss, parameters)

    return step


def _prepare_closed_form(inputs: Inputs) -> Step:
    """The gradients by hand, as a careful user of PyTorch writes them: in place where a temporary can be spared."""
    P, Q, user_bias, item_bias, mu, R, mask, reg = inputs
    bu, bi = user_bias.view(-1, 1), item_bias.view(-1, 1)
    missing = torch.isnan(R) if mask is None else mask == 0
    ratings = R.to(P.dtype)

    def step() -> Outputs:
        E = torch.addmm(bi.T + mu, P, Q.T).add_(bu).sub_(ratings).masked_fill_(missing, 0)
        rows, columns = E.sum(dim=1, keepdim=True), E.sum(dim=0).unsqueeze(1)
        grads: tuple[Tensor, ...] = (
            2 * torch.addmm(reg * P, E, Q),
            2 * torch.addmm(reg * Q, E.T, P),
            2 * (rows + reg * bu).view_as(user_bias),
            2 * (columns + reg * bi).view_as(item_bias),
            2 * rows.sum().view_as(mu),
        )
        squares = E.square_().sum(dtype=torch.float64)
        return squares + reg * sum(parameter.square().sum() for parameter in (P, Q, bu, bi)), grads

    return step
