"""Which problem a checkpoint belongs to: a run continues from one only if both are the same."""

from __future__ import annotations

import hashlib
from typing import Any

from torch import Tensor

from mfbench.problems import matrices
from mfbench.train.options import TrainOptions
from mfbench.train.task import Task

Identity = dict[str, Any]  # by the name in messages; None where an option was left to its default


def identity(options: TrainOptions, task: Task) -> Identity:
    """Return what decides where training leads, as values that JSON holds: data, start, objective and optimizer.

    Provider, device, layout and the number of processes change rounding alone and are left out; so are the options that
    say when to log and when to stop.

    Args:
        task: of all users, on the CPU, before training.
    """
    inputs = task.inputs
    held_out = task.held_out if inputs.sparse else matrices.to_sparse(inputs.ratings, task.held_out)
    trained = inputs.ratings if inputs.sparse else matrices.to_sparse(inputs.ratings, inputs.mask)
    m, n = inputs.ratings.shape
    return {
        "size": f"{m}x{n}",
        "rank": options.rank,
        "seed": options.seed,
        "holdout": options.holdout,
        "reg": options.reg,
        "optimizer": options.update_rule,
        "lr": options.lr,
        "ratings": f"{checksum(trained)}-{checksum(held_out)}",
    }


def differences(there: Identity, here: Identity) -> str:
    """Return how a checkpoint's problem differs from this one, in words; empty if it does not."""

    def shown(value: object) -> object:
        return "left to its default" if value is None else value

    return ", ".join(
        f"{name}: {shown(there.get(name))} there, {shown(value)} here"
        for name, value in here.items()
        if there.get(name) != value
    )


def checksum(ratings: Tensor) -> str:
    """Return a hash of torch.sparse_csr ratings: of their places, dtype and every bit, in 16 characters."""
    digest = hashlib.blake2b(str((tuple(ratings.shape), ratings.dtype)).encode(), digest_size=8)
    pointers, columns, values = matrices.parts(ratings)
    for part in (pointers.long(), columns.long(), values):
        digest.update(part.contiguous().numpy().data)
    return digest.hexdigest()
