"""Sums over the processes of a group: one flat buffer, which carries float64 numbers exactly in any dtype."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from kernels.distributed.group import Group, all_gather

WORDS = 4  # 16-bit words of a float64; float32 holds each of them exactly


def sum_over_processes(
    tensors: Sequence[Tensor], numbers: Sequence[Tensor], group: Group, deterministic: bool
) -> list[Tensor]:
    """Return the sums of tensors over the processes, and last those of float64 numbers; from one collective.

    Args:
        tensors: of one dtype, float32 or float64, with the same shapes on every process.
        numbers: float64, of one element each. The processes' values are added in their order.
        deterministic: add tensors, too, in the order of the processes, whatever the order in which messages arrive.

    Returns:
        Tensors of the same shapes, views of one buffer, bitwise the same on every process, and the numbers.
    """
    if group.size == 1:
        return [*tensors, *numbers]
    dtype = tensors[0].dtype if tensors else torch.float64
    flat = [tensor.reshape(-1) for tensor in tensors]
    slots = _slots(torch.cat([number.reshape(1) for number in numbers]), group, dtype)
    buffer = torch.cat([*flat, slots])
    if deterministic and tensors:  # the order in which slots are added changes nothing
        buffer = _sum_in_order(buffer, group)
    else:
        dist.all_reduce(buffer, group=group.handle)
    lengths = [part.numel() for part in (*flat, slots)]
    *sums, slots = buffer[: sum(lengths)].split(lengths)
    table = slots.to(torch.int16).view(torch.float64).reshape(group.size, len(numbers))
    columns = (table[:, place].reshape(group.size, *number.shape) for place, number in enumerate(numbers))
    wholes = (part.reshape(tensor.shape) for part, tensor in zip(sums, tensors, strict=True))
    return [*wholes, *(column.sum(0) for column in columns)]


def _slots(numbers: Tensor, group: Group, dtype: torch.dtype) -> Tensor:
    """Return a slot for each process, empty but for this one's: sums of slots are exact, and keep all of float64.

    Returns:
        (processes * len(numbers) * WORDS,): integers in `dtype`.
    """
    own = torch.arange(group.size, device=numbers.device) == group.process
    return (own[:, None] * numbers.view(torch.int16)).flatten().to(dtype)


def _sum_in_order(buffer: Tensor, group: Group) -> Tensor:
    """Return the sum of the processes' buffers, padded: each process adds up one share, and all gather the shares.

    The traffic is that of a ring: every process sends 2 (W - 1) / W of the buffer.
    """
    share = -(-buffer.numel() // group.size)
    padded = torch.nn.functional.pad(buffer, (0, share * group.size - buffer.numel()))
    received = torch.empty_like(padded)
    dist.all_to_all_single(received, padded, group=group.handle)
    total, *others = received.reshape(group.size, share)  # by process
    for other in others:
        total += other
    all_gather(padded, total, group=group.handle)
    return padded
