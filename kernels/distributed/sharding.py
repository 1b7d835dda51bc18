"""`DTensor` arguments: users sharded over one dimension of a mesh, items over the other if it has two."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from kernels.distributed.group import axes_of
from kernels.distributed.step import GroupCall
from kernels.problem import Grads

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor

OBSERVATIONS = ("ratings", "mask")
# The dimension of every argument that an axis divides; others are replicated over it
DIVIDED = {
    "users": {"user_factors": 0, "user_bias": 0, "ratings": 0, "mask": 0},
    "items": {"item_factors": 0, "item_bias": 0, "ratings": 1, "mask": 1},
}


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
        users, items, *_ = self.parameters
        return GroupCall(call, self.mesh, (users.shape[0], items.shape[0]))

    def replicated(self, loss: Tensor) -> Tensor:
        """Return the loss as a `DTensor` that every process holds."""
        from torch.distributed.tensor import DTensor, Replicate

        return DTensor.from_local(loss, self.mesh, (Replicate(),) * self.mesh.ndim, run_check=False)

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
        ValueError: the placements are not those of users and items divided over the mesh, the meshes differ or have
            more than two dimensions, or another group is passed beside them.
    """
    module = sys.modules.get("torch.distributed.tensor")
    if module is None:  # so there is none
        return None
    named: dict[str, Any] = dict(zip(Grads._fields, of.call.parameters, strict=True))
    named |= {name: getattr(of.call.observations, name) for name in OBSERVATIONS}
    sharded = {name: value for name, value in named.items() if isinstance(value, module.DTensor)}
    if not sharded:
        return None
    for name in Grads._fields:
        if name not in sharded:
            raise TypeError(f"{name}: expected a DTensor as {next(iter(sharded))}, got {type(named[name]).__name__}")
    mesh = sharded["user_factors"].device_mesh
    axes = axes_of(mesh, "user_factors")
    for name, value in sharded.items():
        if value.device_mesh != mesh:
            raise ValueError(f"{name}: expected {mesh} as user_factors, got {value.device_mesh}")
        divided = [DIVIDED[axis].get(name) for axis in axes]
        expected = tuple(module.Replicate() if d is None else module.Shard(d) for d in divided)
        if tuple(value.placements) != expected:
            raise ValueError(f"{name}: expected placements {expected}, got {tuple(value.placements)}")
    groups = (None, mesh, *(mesh.get_all_groups() if mesh.ndim == 1 else ()))
    if of.group not in groups:
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
