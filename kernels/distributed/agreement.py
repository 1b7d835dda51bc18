"""What every process of a group must pass alike: compared once, before the first step of its kind."""

from __future__ import annotations

from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import Tensor

from kernels.distributed.group import Group, all_gather
from kernels.problem import PARAMETER_DTYPES, Problem


class Kind(NamedTuple):
    """What the size of a sum over the processes depends on."""

    items: int
    rank: int
    dtype: torch.dtype
    gradients: bool
    deterministic: bool


_compared: WeakKeyDictionary[dist.ProcessGroup, set[Kind]] = WeakKeyDictionary()

WORDS = {torch.float32: torch.int32, torch.float64: torch.int64}
# What is compared: a column of the exchanged table, the argument that it comes from, and its name
FIELDS = (
    ("item_factors", "number of items"),
    ("item_factors", "rank"),
    ("item_factors", "dtype"),
    ("mf_loss", "need of gradients"),
    ("deterministic", "value"),
    ("reg", "value"),
    ("item_factors", "values"),
    ("item_bias", "values"),
    ("global_bias", "values"),
)


def check_agreement(
    problem: Problem, gradients: bool, deterministic: bool, group: Group, all_users: int | None
) -> None:
    """Raise ValueError, on every process, where the processes' arguments do not belong to one problem.

    Processes exchange a few numbers before the first step of each kind in a group. Later steps trust that nobody went
    another way, since comparing each time would wait for the device.

    Args:
        all_users: of all processes, where they must be sharded as `torch.chunk` does; None: each has any number.
    """
    _, item_factors, user_bias, item_bias, global_bias = problem.parameters
    kind = Kind(*problem.shape[1:], problem.dtype, gradients, deterministic)
    compared = _compared.setdefault(group.handle, set())
    if kind in compared:
        return
    reg = int(torch.tensor(float(problem.reg), dtype=torch.float64, device="cpu").view(torch.int64))
    numbers = [kind.items, kind.rank, PARAMETER_DTYPES.index(kind.dtype), int(gradients), int(deterministic), reg]
    own = torch.cat([
        torch.tensor(numbers, device=problem.device),
        *(checksum(parameter).reshape(1) for parameter in (item_factors, item_bias, global_bias)),
        torch.ones_like(user_bias, dtype=torch.int64).sum().reshape(1),  # users
    ])  # fmt: skip
    table = own.new_empty(group.size * len(own))
    all_gather(table, own, group=group.handle)
    rows = table.reshape(group.size, len(own)).tolist()
    _compare(rows)
    if all_users is not None:
        _check_chunks([users for *_, users in rows], all_users)
    compared.add(kind)


def checksum(values: Tensor) -> Tensor:
    """Return a number, 0-d int64, that depends on every bit of a tensor and on its place, in whatever order summed."""
    words = values.detach().contiguous().view(WORDS[values.dtype]).reshape(-1).long()
    return (words * (2 * torch.arange(len(words), device=words.device) + 1)).sum()  # wraps around


def _compare(rows: list[list[int]]) -> None:
    for process, row in enumerate(rows):
        for (argument, what), first, own in zip(FIELDS, rows[0], row, strict=False):
            if own != first:
                here, there = (_shown(argument, what, value) for value in (first, own))
                raise ValueError(
                    f"{argument}: expected the same {what} on every process, got {here} on process 0 and {there} on "
                    f"process {process}"
                )


def _check_chunks(users: list[int], all_users: int) -> None:
    """Raise ValueError where the processes' users are not the chunks of `torch.chunk`."""
    chunk = -(-all_users // len(users))
    for process, count in enumerate(users):
        expected = max(0, min(chunk, all_users - process * chunk))
        if count != expected:
            raise ValueError(
                f"user_factors: expected {expected} of {all_users} users on process {process}, as torch.chunk shards "
                f"them, which is all that a DTensor can describe; got {count}. Pass plain tensors, of each process its "
                "own users: these may be any number"
            )


def _shown(argument: str, what: str, value: int) -> str:
    if what == "dtype":
        return str(PARAMETER_DTYPES[value]).removeprefix("torch.")
    if argument == "reg":
        return str(torch.tensor(value).view(torch.float64).item())
    if what == "values":
        return f"ones with checksum {value % 2**64:016x}"
    return str(value) if argument == "item_factors" else str(bool(value))
