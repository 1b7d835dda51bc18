"""Several processes simulated in this one: PyTorch's local-tensor mode over a group without communication."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed._local_tensor import LocalTensor, LocalTensorMode
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore

from kernels.call import bundle
from kernels.distributed.step import GroupCall
from mfbench.problems.inputs import Inputs


@contextmanager
def simulated(processes: int) -> Iterator[DeviceMesh]:
    """Provide a mesh of simulated processes."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=processes)
    try:
        with LocalTensorMode(processes):
            yield init_device_mesh("cpu", (processes,))
    finally:
        dist.destroy_process_group()


def of_each(tensors: Sequence[Tensor]) -> Tensor:
    """Return one tensor that is a different one on every simulated process."""
    result: Tensor = LocalTensor(dict(enumerate(tensors)))
    return result


def on_each(value: Tensor, processes: int) -> list[Tensor]:
    """Return what every simulated process holds."""
    return [value._local_tensors[process] for process in range(processes)]


def divided(inputs: Inputs, bounds: Sequence[int], mesh: DeviceMesh, **options: Any) -> GroupCall:
    """Return the call of processes with the users between `bounds`."""
    parts = [inputs.of_users(slice(start, stop)) for start, stop in pairwise(bounds)]
    user_factors, user_bias, ratings = (
        of_each([getattr(part, name) for part in parts]) for name in ("user_factors", "user_bias", "ratings")
    )
    mask = None if inputs.mask is None else of_each([part.mask for part in parts])
    items = [
        of_each([parameter] * len(parts)) for parameter in (inputs.item_factors, inputs.item_bias, inputs.global_bias)
    ]
    Q, bi, mu = items
    call = bundle(user_factors, Q, user_bias, bi, mu, ratings, mask, inputs.reg, **options)
    return GroupCall(call, mesh.get_group(), mesh.get_local_rank())


def joined(loss: Tensor, grads: Sequence[Tensor], processes: int) -> tuple[Tensor, list[Tensor]]:
    """Return the result of a whole problem, after a check that the simulated processes agree to the bit."""
    return join(*(on_each(value, processes) for value in (loss, *grads)))


def join(losses: Sequence[Tensor], *each: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Return the result of a whole problem from those of its processes, after a check that they agree to the bit.

    Args:
        losses: of every process.
        each: for each of the five gradients, those of every process.
    """
    first, *others = losses
    for other in others:
        assert_equal(first, other)
    whole = []
    for place, parts in enumerate(each):
        if place not in (0, 2):
            for part in parts[1:]:
                assert_equal(part, parts[0])
        whole.append(torch.cat(parts) if place in (0, 2) else parts[0])
    return first, whole


def assert_equal(first: Tensor, second: Tensor) -> None:
    """Check that tensors have the same bits, or are both NaN."""
    torch.testing.assert_close(first, second, rtol=0, atol=0, equal_nan=True)
