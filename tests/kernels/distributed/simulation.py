"""Several processes simulated in this one: PyTorch's local-tensor mode over a group without communication."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from math import prod
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed._local_tensor import LocalTensor, LocalTensorMode
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore

from kernels.call import bundle
from kernels.distributed.step import GroupCall
from mfbench.problems import matrices
from mfbench.problems.inputs import Inputs

BY_USERS, BY_ITEMS = (0, 2), (1, 3)  # places of the gradients


@contextmanager
def simulated(*shape: int, names: tuple[str, ...] | None = None) -> Iterator[DeviceMesh]:
    """Provide a mesh of simulated processes."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=prod(shape))
    try:
        with LocalTensorMode(prod(shape)):
            yield init_device_mesh("cpu", shape, mesh_dim_names=names)
    finally:
        dist.destroy_process_group()


def of_each(tensors: Sequence[Tensor]) -> Tensor:
    """Return one tensor that is a different one on every simulated process."""
    result: Tensor = LocalTensor(dict(enumerate(tensors)))
    return result


def on_each(value: Tensor, processes: int) -> list[Tensor]:
    """Return what every simulated process holds."""
    return [value._local_tensors[process] for process in range(processes)]


def block_of(inputs: Inputs, users: slice, items: slice) -> Inputs:
    """Return the inputs of some users and some items."""
    part = inputs.of_users(users)
    if part.sparse:
        ratings, mask = matrices.to_dense(part.ratings)
        ratings, mask = matrices.to_sparse(ratings[:, items], mask[:, items]), None
    else:
        ratings, mask = (None if matrix is None else matrix[:, items] for matrix in (part.ratings, part.mask))
    return part._replace(
        item_factors=part.item_factors[items], item_bias=part.item_bias[items], ratings=ratings, mask=mask
    )


def divided(
    inputs: Inputs, users: Sequence[int], mesh: DeviceMesh, items: Sequence[int] | None = None, **options: Any
) -> GroupCall:
    """Return the call of processes with the users, and on a mesh of two dimensions the items, between the bounds."""
    items = items or (0, len(inputs.item_factors))
    parts = [block_of(inputs, slice(*rows), slice(*columns)) for rows in pairwise(users) for columns in pairwise(items)]
    return of_parts(parts, mesh, **options)


def of_parts(parts: Sequence[Inputs], mesh: DeviceMesh, **options: Any) -> GroupCall:
    """Return the call of processes, given what each of them passes."""
    *tensors, regs = zip(*parts, strict=True)
    arguments = [None if values[0] is None else of_each(values) for values in tensors]
    return GroupCall(bundle(*arguments, regs[0], **options), mesh)


def joined(
    loss: Tensor, grads: Sequence[Tensor], processes: int, shape: tuple[int, int] | None = None
) -> tuple[Tensor, list[Tensor]]:
    """Return the result of a whole problem, after a check that the simulated processes agree to the bit."""
    return join(*(on_each(value, processes) for value in (loss, *grads)), shape=shape)


def join(
    losses: Sequence[Tensor], *each: Sequence[Tensor], shape: tuple[int, int] | None = None
) -> tuple[Tensor, list[Tensor]]:
    """Return the result of a whole problem from those of its processes, after a check that they agree to the bit.

    Args:
        losses: of every process.
        each: for each of the five gradients, those of every process.
        shape: numbers of blocks of users and of items, the latter in closest succession; None: items are one block.
    """
    first, *others = losses
    for other in others:
        assert_equal(first, other)
    rows, columns = shape or (len(losses), 1)
    whole = []
    for place, parts in enumerate(each):
        by_users = [parts[row * columns : (row + 1) * columns] for row in range(rows)]
        blocks = by_users if place in BY_USERS else [*zip(*by_users, strict=True)] if place in BY_ITEMS else [parts]
        for one, *same in blocks:
            for other in same:
                assert_equal(one, other)
        whole.append(torch.cat([block[0] for block in blocks]) if len(blocks) > 1 else blocks[0][0])
    return first, whole


def assert_equal(first: Tensor, second: Tensor) -> None:
    """Check that tensors have the same bits, or are both NaN."""
    torch.testing.assert_close(first, second, rtol=0, atol=0, equal_nan=True)
