"""Find providers by name, by entry point, or in a user's module."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kernels import encode_ratings, mf_loss_and_grads
from kernels.loss import PRECISIONS
from mfbench.errors import UsageError
from mfbench.problems import matrices
from mfbench.problems.inputs import Inputs
from mfbench.providers import compilation, user_code
from mfbench.providers.graphs import in_graph
from mfbench.wording import nearest
from reference.autograd import notebook_loss, notebook_operands

Outputs = tuple[Any, Any]  # loss, gradients in parameter order
Step = Callable[[], Outputs]
Prepare = Callable[[Inputs], Step]

GROUP = "mfbench.providers"  # of entry points
SPARSE_KERNELS = "layout" in inspect.signature(encode_ratings).parameters  # older revisions take matrices alone


class Provider(NamedTuple):
    """A way to compute loss and gradients."""

    name: str
    prepare: Prepare
    """Called once for a case; returns a step that evaluates the current contents of the inputs at each call."""
    takes_sparse: bool = True  # False: it is given a matrix and a mask in place of sparse ratings
    takes_weights: bool = True  # False: it refuses a mask of weights

    def seen(self, inputs: Inputs) -> Inputs:
        """Return the inputs as the provider's function receives them; `prepare` takes them like the original ones."""
        return inputs if self.takes_sparse else inputs.dense()


class Builtin(NamedTuple):
    """A provider that comes with this project."""

    description: str
    prepare: Prepare
    sparse: bool = False  # it takes sparse ratings; the others are given a matrix and a mask
    weights: bool = True  # it takes a mask of weights


def names() -> dict[str, str]:
    """Return the known providers with their descriptions."""
    builtin = {name: provider.description for name, provider in BUILTIN.items()}
    return builtin | {entry.name: f"from {entry.value}" for entry in entry_points(group=GROUP)}


def check(name: str, argument: str = "provider") -> None:
    """Check that a provider exists, as far as possible without running the user's code.

    Args:
        name: of the provider, path/to/file.py:function or pkg.module:function.
        argument: where the name came from, for the error.

    Raises:
        UsageError: there is none.
    """
    if name in names():
        return
    if location := user_code.locate(name):
        user_code.check(location, argument)
    elif name.endswith(".py"):
        message = f"expected a function of {name}, as {name}:FUNCTION"
        raise UsageError(message, code="no-such-function", argument=argument)
    else:
        message = f"no provider {name!r}, nor path/to/file.py:function{nearest(name, names())}"
        raise UsageError(message, code="no-such-provider", argument=argument)


def load(name: str) -> Provider:
    """Return a provider by its name as `path/to/file.py:function` or as `pkg.module:function`.

    Raises:
        UsageError: no such provider, file or function.
    """
    if name in BUILTIN:
        _, prepare, sparse, weights = BUILTIN[name]
        return Provider(name, prepare if sparse else _on_dense(prepare), takes_weights=weights)
    for entry in entry_points(group=GROUP, name=name):
        return _of_user(name, entry.load())
    check(name)
    location = user_code.locate(name)
    assert location is not None  # by `check`
    return _of_user(name, user_code.load(location))


def _of_user(name: str, function: Callable[..., Outputs]) -> Provider:
    """Return a user's function, which is given sparse ratings if it has an attribute `takes_sparse` that is true."""
    if getattr(function, "takes_sparse", False):
        return Provider(name, _calling(function))
    return Provider(name, _on_dense(_calling(function)), takes_sparse=False)


def _on_dense(prepare: Prepare) -> Prepare:
    """Return the same for a provider that takes a matrix and a mask, which are made once, outside the timing."""
    return lambda inputs: prepare(inputs.dense())


def _on_sparse(prepare: Prepare) -> Prepare:
    """Return the same for a provider that takes sparse ratings alone."""

    def prepared(inputs: Inputs) -> Step:
        if not inputs.sparse:
            if inputs.needs_weights:
                raise ValueError("mask: expected 0 and 1, since sparse ratings cannot carry weights; got others")
            inputs = inputs._replace(ratings=matrices.to_sparse(inputs.ratings, inputs.mask), mask=None)
        return prepare(inputs)

    return prepared


def _calling(function: Callable[..., Outputs], **options: Any) -> Prepare:
    return lambda inputs: functools.partial(function, *inputs, **options)


def _prepare_encoded(inputs: Inputs, **options: Any) -> Step:
    encoded = encode_ratings(inputs.ratings, inputs.mask, **options)
    return functools.partial(mf_loss_and_grads, *inputs[:5], encoded, reg=inputs.reg)


def _prepare_gather(inputs: Inputs) -> Step:
    from reference.autograd import gather_loss  # absent from older revisions
    from reference.problem import Triplets

    triplets = Triplets.of(inputs.ratings)
    parameters = [parameter.detach().requires_grad_() for parameter in inputs[:5]]

    def step() -> Outputs:
        p, q, bu, bi, u = parameters
        loss = gather_loss(p, q, bu, bi, u, *triplets, reg=inputs.reg)
        return loss.detach(), torch.autograd.grad(loss, parameters)

    return step


def _prepare_autograd(inputs: Inputs, compiled: bool = False) -> Step:
    dtype = [inputs.user_factors.dtype] if inputs.weighted else []  # revisions before weights lack the argument
    ratings, mask = notebook_operands(inputs.ratings, inputs.mask, *dtype)
    parameters = [parameter.detach().requires_grad_() for parameter in inputs[:5]]
    p, q, bu, bi, u = parameters
    loss_function = compilation.compiled(notebook_loss) if compiled else notebook_loss

    def step() -> Outputs:
        loss = loss_function(p, q, bu, bi, u, ratings, mask, inputs.reg)
        return loss.detach(), torch.autograd.grad(loss, parameters)

    return step


def _prepare_closed_form(inputs: Inputs, compiled: bool = False) -> Step:
    dtype, mask = inputs.user_factors.dtype, inputs.mask
    missing = torch.isnan(inputs.ratings) if mask is None else mask == 0
    weights = None
    if mask is not None and inputs.needs_weights:
        weights = mask.to(dtype)
    function = compilation.compiled(_closed_form) if compiled else _closed_form
    return functools.partial(function, *inputs[:5], inputs.ratings.to(dtype), missing, weights, inputs.reg)


def _closed_form(
    P: Tensor, Q: Tensor, user_bias: Tensor, item_bias: Tensor, mu: Tensor, ratings: Tensor, missing: Tensor,
    weights: Tensor | None, reg: float,
) -> Outputs:  # fmt: skip
    """Return the loss and the gradients, written out, in place where that saves a temporary."""
    bu, bi = user_bias.view(-1, 1), item_bias.view(-1, 1)
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


def _fused(description: str, **options: Any) -> Builtin:
    return Builtin(description, _calling(mf_loss_and_grads, **options), SPARSE_KERNELS)


BUILTIN = {
    "fused": _fused("this project: the device's fused kernel"),
    "fused-deterministic": _fused("the same, bitwise repeatable", deterministic=True),
    "fused-encoded": Builtin(
        "the same, on ratings encoded beforehand, in the faster layout and the fewest bytes",
        _prepare_encoded,
        SPARSE_KERNELS,
        weights=False,
    ),
    "fused-sparse": Builtin(
        "the same, on the observed ratings alone, encoded beforehand",
        functools.partial(_prepare_encoded, layout="sparse"),
        SPARSE_KERNELS,
        weights=False,
    ),
    **{
        f"fused-{precision}": _fused(f"the same with {precision} products", precision=precision)
        for precision in PRECISIONS
    },
    "tiled": _fused("the same pass as a loop over tiles in plain PyTorch, without a compiler", backend="torch"),
    "autograd": Builtin("the notebook's expressions, eager, and backward()", _prepare_autograd),
    "compile": Builtin(
        "torch.compile of the notebook's expressions, and backward()",
        functools.partial(_prepare_autograd, compiled=True),
    ),
    "compile-closed-form": Builtin(
        "torch.compile of `closed-form`",
        functools.partial(_prepare_closed_form, compiled=True),
    ),
    "gather": Builtin(
        "what PyTorch users write for sparse ratings: index both factors by triplets, sum, backward()",
        _on_sparse(_prepare_gather),
        True,
        weights=False,
    ),
    "closed-form": Builtin("three matrix products and elementwise operations, no autograd", _prepare_closed_form),
}
GRAPHS = {
    f"{name}-graph": Builtin(f"`{name}` captured in a CUDA graph, on a GPU only", in_graph(BUILTIN[name].prepare))
    for name in ("fused", "autograd", "compile")
}
BUILTIN |= GRAPHS
