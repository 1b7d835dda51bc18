"""Draw which ratings are observed as in real data: a few users and items have most of them."""

from __future__ import annotations

import torch
from torch import Tensor

from mfbench.problems.matrices import csr

# Expected ratings of the r-th user or item are proportional to (r + HEAD * count) ** -EXPONENT. On the shape of ML-10M
# the busiest tenth of the users gives 46 % of the ratings, the busiest one rates a seventh of the items.
EXPONENT, HEAD = 1.2, 0.03
SPARE = 1.5  # places drawn for each one still missing, since some are drawn twice
MOST_ROUNDS = 64  # of drawing; a matrix that is nearly full is completed at random


def draw(m: int, n: int, count: int, generator: torch.Generator) -> Tensor:
    """Return a torch.sparse_csr matrix with `count` distinct places, ascending columns, and values of 0.

    Users and items are drawn independently of each other, so that time and memory grow with the ratings alone.

    Args:
        m: users.
        n: items.
        count: ratings; at most m n.
        generator: of random numbers, on the CPU.
    """
    users, items = _shares(m, generator), _shares(n, generator)
    places = torch.zeros(0, dtype=torch.int64, device="cpu")
    for _ in range(MOST_ROUNDS):
        if len(places) >= count:
            break
        missing = int(SPARE * (count - len(places))) + 16
        drawn = _pick(users, missing, generator) * n + _pick(items, missing, generator)
        places = torch.cat([places, drawn]).unique()
    if len(places) < count:
        places = _completed(places, m * n, count, generator)
    if len(places) > count:
        kept = torch.ones(len(places), dtype=torch.bool, device="cpu")
        kept[torch.randperm(len(places), generator=generator, device="cpu")[count:]] = False
        places = places[kept]
    rows = torch.div(places, max(1, n), rounding_mode="floor")
    starts = torch.zeros(m + 1, dtype=torch.int64, device="cpu")
    torch.cumsum(torch.bincount(rows, minlength=m), 0, out=starts[1:])
    dtype = torch.int32 if count < 2**31 else torch.int64
    return csr(starts.to(dtype), (places - rows * n).to(dtype), torch.zeros(count, device="cpu"), (m, n))


def _shares(count: int, generator: torch.Generator) -> Tensor:
    """Return cumulated shares of the ratings of users or items, which come in random order."""
    ranks = torch.randperm(count, generator=generator, device="cpu").double()
    return (ranks + 1 + HEAD * count).pow(-EXPONENT).cumsum(0)


def _pick(shares: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return `count` random indices in proportion to their shares."""
    at = torch.rand(count, generator=generator, dtype=torch.float64, device="cpu") * shares[-1]
    return torch.searchsorted(shares, at, right=True).clamp_(max=len(shares) - 1)


def _completed(places: Tensor, cells: int, count: int, generator: torch.Generator) -> Tensor:
    """Return `count` places of a nearly full matrix, the given ones among them, in order."""
    free = torch.ones(cells, dtype=torch.bool, device="cpu")
    free[places] = False
    others = free.nonzero().squeeze(1)
    chosen = torch.randperm(len(others), generator=generator, device="cpu")[: count - len(places)]
    return torch.cat([places, others[chosen]]).sort().values
