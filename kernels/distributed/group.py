"""The group of processes that share a problem, and what makes it unfit for a call."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.distributed as dist

# (output, input, group): PyTorch 2.13 renames it
all_gather: Any = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


class Group(NamedTuple):
    """A process group, and this process's place in it."""

    handle: dist.ProcessGroup
    process: int  # rank in the group; in this package `rank` is the factors' length
    size: int


def resolve_group(group: Any, device: torch.device) -> Group:
    """Return the group that a caller passed; None stands for the default group.

    Raises:
        TypeError: `group` is not a process group.
        ValueError: no group is initialised, the process does not belong to the group, or the group does not
            communicate tensors on `device`.
    """
    if not dist.is_available() or not dist.is_initialized():
        raise ValueError(
            "group: expected an initialised process group; call torch.distributed.init_process_group() first, "
            "in a program that torchrun starts"
        )
    if group is dist.GroupMember.NON_GROUP_MEMBER:
        raise ValueError("group: expected a group that this process belongs to, got one of other processes")
    if group is not None and not isinstance(group, dist.ProcessGroup):
        raise TypeError(f"group: expected a torch.distributed process group or None, got {type(group).__name__}")
    handle: Any = dist.group.WORLD if group is None else group
    process = dist.get_rank(handle)
    if process < 0:
        raise ValueError("group: expected a group that this process belongs to, got one of other processes")
    if device.type not in communicating_devices(handle):
        raise ValueError(
            f"group: expected one that communicates tensors on {device.type}, the device of the parameters, "
            f"got {dist.get_backend_config(handle)}"
        )
    return Group(handle, process, dist.get_world_size(handle))


def communicating_devices(group: dist.ProcessGroup) -> set[str]:
    """Return the types of devices whose tensors a group takes."""
    pairs = dist.get_backend_config(group).split(",")  # as "cpu:gloo,cuda:nccl"
    return {pair.partition(":")[0] for pair in pairs}
