"""The processes that share a problem: a group, or a mesh of users x items, and what makes them unfit for a call."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

# (output, input, group): PyTorch 2.13 renames it
all_gather: Any = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor

AXES = ("users", "items")  # of the rating matrix: its rows and its columns


class Group(NamedTuple):
    """Processes that add something up, and this process's place among them."""

    handle: Any  # a process group; None: this process alone
    process: int  # rank in the group; in this package `rank` is the factors' length
    size: int
    axis: str = ""  # of a mesh: what its processes divide


ALONE = Group(None, 0, 1)


class Axes(NamedTuple):
    """The groups of a process, one for each axis of the rating matrix."""

    users: Group  # each with other users and the same items, whose gradients they add up
    items: Group  # each with other items and the same users, likewise

    @property
    def size(self) -> int:
        """Number of processes."""
        return self.users.size * self.items.size


def resolve_axes(group: Any, device: torch.device) -> Axes:
    """Return the groups that a caller's argument means: the users of a process group are divided among its processes.

    Args:
        group: a process group, a device mesh (see `axes_of`), or None for the default group.
        device: of the parameters.

    Raises:
        TypeError: `group` is neither.
        ValueError: no group is initialised, the process does not belong to the group, the group does not communicate
            tensors on `device`, or a mesh has another number of dimensions.
    """
    if not dist.is_available() or not dist.is_initialized():
        raise ValueError(
            "group: expected an initialised process group; call torch.distributed.init_process_group() first, "
            "in a program that torchrun starts"
        )
    axes = _axes_of_mesh(group) if isinstance(group, DeviceMesh) else Axes(_group(group), ALONE)
    for handle in (axis.handle for axis in axes if axis.handle is not None):
        if device.type not in communicating_devices(handle):
            raise ValueError(
                f"group: expected one that communicates tensors on {device.type}, the device of the parameters, "
                f"got {dist.get_backend_config(handle)}"
            )
    return axes


def axes_of(mesh: DeviceMesh, argument: str = "group") -> tuple[str, ...]:
    """Return what each dimension of a mesh divides: by its name, "users" or "items"; without both, users come first.

    Raises:
        ValueError: the mesh has neither one nor two dimensions.
    """
    if mesh.ndim not in (1, 2):
        expected = "a device mesh of users, or of users x items"
        raise ValueError(f"{argument}: expected {expected}; got {mesh.ndim} dimensions")
    names = mesh.mesh_dim_names or ()
    known = [name for name in names if name in AXES]
    if not known:
        return AXES[: mesh.ndim]
    other = AXES[1 - AXES.index(known[0])]
    return tuple(name if name in known else other for name in names)


def _axes_of_mesh(mesh: DeviceMesh) -> Axes:
    dimensions = enumerate(axes_of(mesh))
    place = mesh.get_coordinate()
    if place is None:
        raise ValueError("group: expected a device mesh that this process belongs to, got one of other processes")
    groups = {axis: Group(mesh.get_group(d), place[d], mesh.size(d), axis) for d, axis in dimensions}
    return Axes(*(groups.get(axis, ALONE) for axis in AXES))


def _group(group: Any) -> Group:
    if group is dist.GroupMember.NON_GROUP_MEMBER:
        raise ValueError("group: expected a group that this process belongs to, got one of other processes")
    if group is not None and not isinstance(group, dist.ProcessGroup):
        raise TypeError(
            "group: expected a torch.distributed process group, a device mesh or None, "
            f"got {type(group).__name__}"
        )  # fmt: skip
    handle: Any = dist.group.WORLD if group is None else group
    process = dist.get_rank(handle)
    if process < 0:
        raise ValueError("group: expected a group that this process belongs to, got one of other processes")
    return Group(handle, process, dist.get_world_size(handle))


def communicating_devices(group: dist.ProcessGroup) -> set[str]:
    """Return the types of devices whose tensors a group takes."""
    pairs = dist.get_backend_config(group).split(",")  # as "cpu:gloo,cuda:nccl"
    return {pair.partition(":")[0] for pair in pairs}
