"""The workspace of a step: one allocation, divided into what its launches hand to each other."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

ALIGNMENT = 256  # bytes: no region shares a cache line with another, and vectors can be loaded from each


class Region(NamedTuple):
    """A tensor in the workspace."""

    offset: int  # bytes
    shape: tuple[int, ...]
    dtype: torch.dtype

    def of(self, workspace: Tensor) -> Tensor:
        """Return the region of a workspace, a vector of any dtype, as a tensor."""
        start = self.offset // workspace.element_size()
        length = -(-math.prod(self.shape) * self.dtype.itemsize // workspace.element_size())
        return workspace[start : start + length].view(self.dtype)[: math.prod(self.shape)].view(self.shape)


class Layout:
    """The regions of a workspace, one after another."""

    def __init__(self) -> None:
        self.nbytes = 0

    def add(self, dtype: torch.dtype, *shape: int) -> Region:
        """Return a new region at the end."""
        region = Region(self.nbytes, shape, dtype)
        self.nbytes += -(-math.prod(shape) * dtype.itemsize // ALIGNMENT) * ALIGNMENT
        return region
