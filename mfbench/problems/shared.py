"""Inputs in a file in memory: drawn or read once, then mapped by every process that needs them.

Each process has a private mapping. All of them share the pages, until one writes to a page and gets its own copy of it.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import tempfile
import weakref
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mfbench.problems import matrices
from mfbench.problems.inputs import ALIGNMENT, Inputs, copied

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

REMAPPED = 64 << 20  # bytes from which a tensor moves to other addresses, not to other pages: beyond the caches


class Part(NamedTuple):
    """A strided tensor in the file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int  # bytes

    @property
    def size(self) -> int:
        """Bytes."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


class Location(NamedTuple):
    """Where the inputs of a case lie; another process maps them while `SharedInputs` exists in this one."""

    path: str
    size: int  # bytes of the file
    tensors: dict[str, tuple[tuple[int, ...], list[Part]]]  # shape and parts of each tensor, by name
    reg: float


class SharedInputs:
    """Inputs in a file in memory, which goes when this object does.

    Attributes:
        inputs: mapped in this process.
        location: for other processes; can be pickled.
    """

    def __init__(self, inputs: Inputs) -> None:
        """Copy the inputs, on the CPU, into a new file.

        Raises:
            OSError: there is no memory for it.
        """
        tensors, size = _planned(inputs)
        descriptor, path = _new_file()
        weakref.finalize(self, _remove, descriptor, path)
        os.truncate(descriptor, size)
        for name, (_, placed) in tensors.items():
            for part, tensor in zip(placed, matrices.parts(getattr(inputs, name)), strict=True):
                _write(descriptor, tensor, part.offset)
        if path is None:
            _seal(descriptor)
            path = f"/proc/{os.getpid()}/fd/{descriptor}"
        self.location = Location(path, size, tensors, inputs.reg)
        self.inputs = mapped(self.location)


def mapped(location: Location) -> Inputs:
    """Return the inputs, mapped from their file; what this process writes to them stays its own.

    Raises:
        OSError: the file is gone, or there is no room for the mapping.
    """
    pages = _pages(location)
    found: dict[str, Any] = {
        name: _assembled(shape, [_view(pages, part) for part in placed])
        for name, (shape, placed) in location.tensors.items()
    }
    return Inputs(**{"mask": None} | found, reg=location.reg)


def moved(location: Location, inputs: Inputs) -> Inputs:
    """Return the inputs at new addresses: small parts copied to unused memory, large ones mapped again from the file.

    Args:
        location: of the same inputs.
        inputs: small parts are copied from these; large parts return to what was drawn.
    """
    pages = _pages(location) if location.size >= REMAPPED else None
    found: dict[str, Any] = {}
    for name, (shape, placed) in location.tensors.items():
        now = matrices.parts(getattr(inputs, name))
        found[name] = _assembled(
            shape,
            [
                _view(pages, part) if pages is not None and part.size >= REMAPPED else copied(tensor)
                for part, tensor in zip(placed, now, strict=True)
            ],
        )
    return inputs._replace(**found)


def _planned(inputs: Inputs) -> tuple[dict[str, tuple[tuple[int, ...], list[Part]]], int]:
    """Return where each tensor's parts go, and the size of the file."""
    tensors, end = {}, 0
    for name, value in inputs._asdict().items():
        if isinstance(value, Tensor):
            placed = []
            for tensor in matrices.parts(value):
                part = Part(tensor.dtype, tuple(tensor.shape), end)
                placed.append(part)
                end += -(-part.size // ALIGNMENT) * ALIGNMENT
            tensors[name] = tuple(value.shape), placed
    return tensors, max(end, 1)


def _new_file() -> tuple[int, str | None]:
    """Return a descriptor, and the path of a file that must be removed; None for one without a name."""
    if hasattr(os, "memfd_create") and Path("/proc/self/fd").exists():
        return os.memfd_create("mfbench-inputs", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), None
    return tempfile.mkstemp(prefix="mfbench-inputs-")


def _remove(descriptor: int, path: str | None) -> None:
    os.close(descriptor)
    if path is not None:
        with contextlib.suppress(OSError):  # Windows, while a worker has it mapped
            os.unlink(path)


def _seal(descriptor: int) -> None:
    """Make the file immutable, for every process."""
    with contextlib.suppress(OSError, AttributeError):  # a system without seals
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)


def _write(descriptor: int, tensor: Tensor, offset: int) -> None:
    os.lseek(descriptor, offset, os.SEEK_SET)
    content = memoryview(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().data)
    while content:
        content = content[os.write(descriptor, content) :]


def _pages(location: Location) -> mmap.mmap:
    with open(location.path, "rb") as file:
        return mmap.mmap(file.fileno(), location.size, access=mmap.ACCESS_COPY)


def _view(pages: mmap.mmap, part: Part) -> Tensor:
    if not part.size:
        return torch.zeros(part.shape, dtype=part.dtype, device="cpu")
    count = torch.Size(part.shape).numel()
    return torch.frombuffer(pages, dtype=part.dtype, count=count, offset=part.offset).view(part.shape)


def _assembled(shape: tuple[int, ...], parts: list[Tensor]) -> Tensor:
    if len(parts) == 1:
        return parts[0]
    starts, columns, values = parts
    return matrices.csr(starts, columns, values, shape)
