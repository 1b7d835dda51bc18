"""Divide users among processes, so that each has about the same number of ratings."""

from __future__ import annotations

import torch
from torch import Tensor


def bounds(counts: Tensor, processes: int) -> list[int]:
    """Return where the users of each process start, and last the number of users.

    Args:
        counts: (m,), ratings of each user.
        processes: more than users leave some without any.
    """
    total, before = int(counts.sum()), torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    if not total:  # divide the users themselves
        before = torch.arange(len(before), device=counts.device)
        total = len(counts)
    wanted = torch.arange(1, processes, device=counts.device) * total // processes
    return [0, *torch.searchsorted(before, wanted).tolist(), len(counts)]
