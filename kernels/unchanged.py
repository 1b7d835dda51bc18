"""Keep what was found out about tensors for as long as they live unchanged."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

Value = TypeVar("Value")
State = tuple[weakref.ref[Tensor], int, int, torch.Size]  # a tensor, its version, address and shape


class Unchanged(Generic[Value]):
    """Values by tensors, each dropped with the first of its tensors, and void once one of them has changed.

    A change is what PyTorch's version counter counts, or other memory. PyTorch's dictionary of weak keys would add 6 us
    to every look-up.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[list[State], Value]] = {}  # by the id of the first tensor

    def get(self, tensors: Sequence[Tensor]) -> Value | None:
        """Return the value of these tensors; None if there is none, or one of them has changed since."""
        known = self._known.get(id(tensors[0]))
        if known is None:
            return None
        states, value = known
        for (reference, version, address, shape), tensor in zip(states, tensors, strict=True):
            if reference() is not tensor:  # an id may have been another tensor's
                return None
            if tensor._version != version or tensor.data_ptr() != address or tensor.shape != shape:
                return None
        return value

    def keep(self, tensors: Sequence[Tensor], value: Value) -> None:
        """Keep the value of these tensors, unless nobody counts their changes: those of inference tensors."""
        if any(tensor.is_inference() for tensor in tensors):
            return
        key = id(tensors[0])
        references = weakref.ref(tensors[0], lambda _: self._known.pop(key, None)), *map(weakref.ref, tensors[1:])
        states = [(r, t._version, t.data_ptr(), t.shape) for r, t in zip(references, tensors, strict=True)]
        self._known[key] = states, value
