"""`DTensor` arguments: users sharded, items replicated, over a mesh of one dimension."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from kernels.distributed.step import GroupCall
from kernels.problem import Grads

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor

USERS = (0, 2)  # places of the users' parameters


class Sharding(NamedTuple):
    """The mesh of the arguments, and the parameters as they came."""

    mesh: DeviceMesh
    parameters: Sequence[DTensor]

    def local(self, of: GroupCall) -> GroupCall:
        """Return the call on this process's own tensors, from which derivatives flow back into the parameters."""
        call = of.call
        P, Q, bu, bi, mu = (parameter.to_local(grad_placements=parameter.placements) for parameter in self.parameters)
        ratings, mask, *_ = call.observations
        observations = call.observations._replace(ratings=_local(ratings), mask=_local(mask))
        call = call._replace(parameters=(P, Q, bu, bi, mu), observations=observations)
        return GroupCall(call, self.mesh.get_group(), self.mesh.get_local_rank(), self.parameters[0].shape[0])

    def replicated(self, loss: Tensor) -> Tensor:
        """Return the loss as a `DTensor` that every process holds."""
        from torch.distributed.tensor import DTensor, Replicate

        return DTensor.from_local(loss, self.mesh, (Replicate(),), run_check=False)

    def as_parameters(self, grads: Grads) -> Grads:
        """Return gradients as `DTensor`s with the placements of their parameters."""
        from torch.distributed.tensor import DTensor

        pairs = zip(grads, self.parameters, strict=True)
        return Grads(*(
            DTensor.from_local(
                grad, self.mesh, like.placements, run_check=False, shape=like.shape, stride=_contiguous(like.shape)
            )
            for grad, like in pairs
        ))  # fmt: skip


def sharding_of(of: GroupCall) -> Sharding | None:
    """Return how the arguments are sharded; None if all of them are plain.

    Raises:
        TypeError: only some of the parameters are `DTensor`s.
        ValueError: the placements are not those of users sharded and items replicated, the meshes differ or have
            several dimensions, or a group is passed beside them.
    """
    module = sys.modules.get("torch.distributed.tensor")
    if module is None:  # so there is none
        return None
    observations = {"ratings": of.call.observations.ratings, "mask": of.call.observations.mask}
    named: dict[str, Any] = dict(zip(Grads._fields, of.call.parameters, strict=True)) | observations
    sharded = {name: value for name, value in named.items() if isinstance(value, module.DTensor)}
    if not sharded:
        return None
    for name in Grads._fields:
        if name not in sharded:
            raise TypeError(f"{name}: expected a DTensor as {next(iter(sharded))}, got {type(named[name]).__name__}")
    mesh = sharded["user_factors"].device_mesh
    if mesh.ndim != 1:
        raise ValueError(f"user_factors: expected a device mesh of one dimension, got {mesh}")
    for place, (name, value) in enumerate(sharded.items()):
        if value.device_mesh != mesh:
            raise ValueError(f"{name}: expected {mesh} as user_factors, got {value.device_mesh}")
        by_users = place in USERS or name in observations
        expected = (module.Shard(0) if by_users else module.Replicate(),)
        if tuple(value.placements) != expected:
            raise ValueError(f"{name}: expected placements {expected}, got {tuple(value.placements)}")
    if of.group is not None and of.group != mesh.get_group():
        raise ValueError("group: expected None or the group of the DTensors' mesh, got a different one")
    return Sharding(mesh, [sharded[name] for name in Grads._fields])


def _local(value: Any) -> Any:
    return value.to_local() if hasattr(value, "to_local") else value


def _contiguous(shape: Sequence[int]) -> tuple[int, ...]:
    strides, stride = [], 1
    for size in reversed(shape):
        strides.append(stride)
        stride *= max(1, size)
    return tuple(reversed(strides))
