"""What processes must pass alike: compared once, before the first step of its kind."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import Tensor

from kernels.distributed.failure import naming_missing_processes
from kernels.distributed.group import AXES, Axes, Group, all_gather
from kernels.problem import PARAMETER_DTYPES, Problem


class Kind(NamedTuple):
    """What determines the size of a sum over the processes, except for what may differ between them."""

    items: int | None  # None: divided among the processes
    rank: int
    dtype: torch.dtype
    gradients: bool
    deterministic: bool


class Field(NamedTuple):
    """A number that processes compare."""

    argument: str
    what: str
    block_of: str = ""  # one of `AXES`: processes with the same block of them must agree; "": all processes


_compared: WeakKeyDictionary[dist.ProcessGroup, set[Kind]] = WeakKeyDictionary()

BLOCK_WORDS = 1 << 22  # of a checksum computed at once, to bound the memory of temporaries
WORDS = {torch.float32: torch.int32, torch.float64: torch.int64}
FIELDS = (
    Field("user_factors", "number of users", "users"),
    Field("item_factors", "number of items", "items"),
    Field("item_factors", "rank"),
    Field("item_factors", "dtype"),
    Field("mf_loss", "need of gradients"),
    Field("deterministic", "value"),
    Field("reg", "value"),
    Field("user_factors", "values", "users"),
    Field("item_factors", "values", "items"),
    Field("user_bias", "values", "users"),
    Field("item_bias", "values", "items"),
    Field("global_bias", "values"),
)
Table = list[list[list[int]]]  # of a process with block a of the users and block b of the items: table[a][b][field]


def check_agreement(
    problem: Problem, gradients: bool, deterministic: bool, axes: Axes, whole: tuple[int, int] | None
) -> None:
    """Raise ValueError, on every process, where the processes' arguments do not belong to one problem.

    Processes exchange a few numbers before the first step of each kind in a group. Later steps trust that nobody went
    another way, since comparing each time would wait for the device.

    Args:
        axes: of several processes.
        whole: all users and items, where they must be sharded as `torch.chunk` does; None: each process has any number.
    """
    handle = next(group.handle for group in axes if group.size > 1)
    _, items, rank = problem.shape
    kind = Kind(items if axes.items.size == 1 else None, rank, problem.dtype, gradients, deterministic)
    compared = _compared.setdefault(handle, set())
    if kind in compared:
        return
    numbers = _numbers(problem, kind, axes)
    for group in (axes.items, axes.users):
        numbers = _gathered(numbers, group)
    table: Table = numbers.reshape(axes.users.size, axes.items.size, len(FIELDS)).tolist()
    _compare(table)
    if whole is not None:
        _check_chunks("users", [row[0][0] for row in table], whole[0])
        _check_chunks("items", [own[1] for own in table[0]], whole[1])
    compared.add(kind)


def checksum(values: Tensor) -> Tensor:
    """Return a number, 0-d int64, that depends on every bit of a tensor and on its place, in whatever order summed."""
    words = values.detach().contiguous().view(WORDS[values.dtype]).reshape(-1)
    total, before = torch.zeros_like(words[:0]).sum(), 0
    for block in words.split(BLOCK_WORDS):
        place = torch.ones_like(block, dtype=torch.int64).cumsum(0) + before
        total = total + (block * (2 * place - 1)).sum()  # odd factors; wraps around
        before += BLOCK_WORDS
    return total


def _numbers(problem: Problem, kind: Kind, axes: Axes) -> Tensor:
    """Return this process's fields, (len(FIELDS),) int64, with 0 for values that no other process has."""
    P, Q, bu, bi, mu = problem.parameters
    reg = int(torch.tensor(float(problem.reg), dtype=torch.float64, device="cpu").view(torch.int64))
    options = (kind.rank, PARAMETER_DTYPES.index(kind.dtype), int(kind.gradients), int(kind.deterministic), reg)
    shared = {"users": axes.items.size > 1, "items": axes.users.size > 1, "": True}
    values = [
        checksum(value if shared[field.block_of] else value[:0])
        for field, value in zip(FIELDS[-5:], (P, Q, bu, bi, mu), strict=True)
    ]
    counts = [torch.ones_like(bias, dtype=torch.int64).sum() for bias in (bu, bi)]
    return torch.cat([
        torch.stack(counts), torch.tensor(options, device=problem.device), torch.stack(values),
    ])  # fmt: skip


def _gathered(own: Tensor, group: Group) -> Tensor:
    if group.size == 1:
        return own
    table = own.new_empty(group.size * own.numel())
    with naming_missing_processes(group):
        all_gather(table, own, group=group.handle)
    return table


def _compare(table: Table) -> None:
    """Raise ValueError where a field differs from that of the first process that must agree."""
    by_items = len(table[0]) > 1
    for users, items in product(range(len(table)), range(len(table[0]))):
        for place, field in enumerate(FIELDS):
            first = (users if field.block_of == "users" else 0, items if field.block_of == "items" else 0)
            expected, value = table[first[0]][first[1]][place], table[users][items][place]
            if value == expected:
                continue
            block = users if field.block_of == "users" else items
            among = f" with block {block} of the {field.block_of}" if by_items and field.block_of else ""
            raise ValueError(
                f"{field.argument}: expected the same {field.what} on every process{among}, "
                f"got {_shown(field, expected)} on process {first if by_items else first[0]} "
                f"and {_shown(field, value)} on process {(users, items) if by_items else users}"
            )


def _check_chunks(axis: str, counts: Sequence[int], whole: int) -> None:
    """Raise ValueError where the blocks of users or items are not the chunks of `torch.chunk`."""
    chunk = -(-whole // len(counts))
    argument = ("user_factors", "item_factors")[AXES.index(axis)]
    for block, count in enumerate(counts):
        expected = max(0, min(chunk, whole - block * chunk))
        if count != expected:
            raise ValueError(
                f"{argument}: expected {expected} of {whole} {axis} in block {block}, as torch.chunk shards them, "
                f"which is all that a DTensor can describe; got {count}. Pass plain tensors, of each process its "
                f"own {axis}: these may be any number"
            )


def _shown(field: Field, value: int) -> str:
    if field.what == "dtype":
        return str(PARAMETER_DTYPES[value]).removeprefix("torch.")
    if field.argument == "reg":
        return str(torch.tensor(value).view(torch.float64).item())
    if field.what == "values":
        return f"ones with checksum {value % 2**64:016x}"
    return str(value) if field.argument.endswith("factors") else str(bool(value))
