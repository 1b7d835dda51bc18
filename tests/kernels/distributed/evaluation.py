"""Problems for processes, divided in blocks, and every way to evaluate one, judged against the oracle."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, product
from typing import Any

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from kernels import Grads, encode_ratings
from kernels.distributed import mf_loss, mf_loss_and_grads, mf_sse
from mfbench.problems import matrices
from mfbench.problems.inputs import Inputs
from reference import oracle_loss_and_grads
from tests.kernels.distributed.simulation import block_of, join
from tests.problems import assert_right, draw_inputs

USERS, ITEMS = 41, 29
# Where blocks start and end, by their number
ROWS = {1: (0, USERS), 2: (0, 30, USERS), 3: (0, 30, 30, USERS), 4: (0, 1, 30, USERS, USERS)}
COLUMNS = {1: (0, ITEMS), 2: (0, 20, ITEMS), 4: (0, 1, 20, 20, ITEMS)}
KINDS = ("mask", "NaN", "weights", "sparse", "encoded", "encoded sparse")


def drawn(kind: str, dtype: torch.dtype) -> Inputs:
    """Return inputs of one kind of ratings: a matrix, or for sparse kinds `torch.sparse_csr`."""
    mask_dtype = {"NaN": None, "weights": torch.float32}.get(kind, torch.bool)
    inputs = draw_inputs(USERS, ITEMS, 7, dtype, mask_dtype=mask_dtype, seed=3)
    if "sparse" not in kind:
        return inputs
    return inputs._replace(ratings=matrices.to_sparse(inputs.ratings, inputs.mask), mask=None)


def encoded(part: Inputs, kind: str) -> Inputs:
    """Return a process's inputs with encoded ratings if that is their kind."""
    if not kind.startswith("encoded"):
        return part
    layout = "sparse" if part.sparse else "dense"
    return part._replace(ratings=encode_ratings(part.ratings, part.mask, layout=layout), mask=None)


def parts(inputs: Inputs, shape: tuple[int, int], kind: str = "") -> list[Inputs]:
    """Return what every process of a mesh of users x items passes."""
    blocks = product(pairwise(ROWS[shape[0]]), pairwise(COLUMNS[shape[1]]))
    return [encoded(block_of(inputs, slice(*users), slice(*items)), kind) for users, items in blocks]


def by_axes(mesh: DeviceMesh, inputs: Inputs) -> list[Any]:
    """Return the arguments as `DTensor`s over a mesh of users x items."""
    whole = [Replicate(), Replicate()]
    of_users, of_items, block = [Shard(0), Replicate()], [Replicate(), Shard(0)], [Shard(0), Shard(1)]
    placements = (of_users, of_items, of_users, of_items, whole, block, block)
    return [distribute_tensor(value, mesh, where) for value, where in zip(inputs[:7], placements, strict=True)]


def evaluated(part: Inputs, group: Any, options: dict[str, Any]) -> Any:
    """Evaluate a problem in every way: step, derivatives of a differentiable loss, loss alone, squared errors.

    Args:
        part: what this process passes.
        group: a process group or a mesh.
        options: of all functions.
    """
    loss, grads = mf_loss_and_grads(*part, group=group, **options)
    leaves = [parameter.clone().requires_grad_() for parameter in part[:5]]
    differentiable = mf_loss(*leaves, *part[5:], group=group, **options)
    (3 * differentiable).backward()
    alone = mf_loss(*part, group=group, **options)
    sse = mf_sse(*part[:7], group=group, **options)
    return loss, tuple(grads), differentiable.detach(), [leaf.grad for leaf in leaves], alone, sse


def check(inputs: Inputs, results: Sequence[Any], shape: tuple[int, int] | None = None) -> None:
    """Check what `evaluated` returned on all processes, and that what they share has the same bits.

    Args:
        shape: of the mesh; None: users alone are divided.
    """
    for result in results:
        if isinstance(result, Exception):
            raise result
    losses, grads, differentiable, backward, alone, sse = zip(*results, strict=True)
    loss, whole = join(losses, *zip(*grads, strict=True), shape=shape)
    assert_right(inputs, (loss, Grads(*whole)))
    _, scaled = join(differentiable, *zip(*backward, strict=True), shape=shape)
    for gradient, three_times in zip(whole, scaled, strict=True):
        torch.testing.assert_close(three_times, 3 * gradient)  # a library may round otherwise in other memory
    exact, _ = oracle_loss_and_grads(*inputs[:7], 0.0)
    for process in range(len(results)):
        torch.testing.assert_close(differentiable[process], loss, rtol=1e-7, atol=0)
        torch.testing.assert_close(alone[process], loss, rtol=1e-7, atol=0)
        torch.testing.assert_close(float(sse[process]), float(exact), rtol=1e-5, atol=0)
