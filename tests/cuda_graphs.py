"""A stand-in for PyTorch's CUDA graphs on CPU tensors: it records the operators of a capture, and replays them.

As on a GPU, operators run into the memory of the capture: a replay reads what inputs hold by then and writes the
tensors that the captured function returned; Python code of the function does not run again, a value that is read on
the host during the capture is an error, and after a capture the tensors that it wrote to are as they were.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mfbench.providers import graphs

WAITS = ("aten._local_scalar_dense", "aten.nonzero", "aten.is_nonzero")  # operators whose result the host waits for


class Graph:
    """Implements what is used of `torch.cuda.CUDAGraph`."""

    def __init__(self) -> None:
        self.launches: list[Callable[[], None]] = []
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1
        with torch.no_grad():
            for launch in self.launches:
                launch()


class _Recorder(TorchDispatchMode):
    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        self.overwritten: list[tuple[torch.Tensor, torch.Tensor]] = []  # tensors, and what they held before

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if str(func).startswith(WAITS):
            raise RuntimeError("operation not permitted when stream is capturing")
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                self.overwritten += [(tensor, tensor.clone()) for tensor in tree_leaves(value)]
        outputs = func(*args, **kwargs)

        def launch() -> None:
            for old, new in zip(tree_leaves(outputs), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)

        self.graph.launches.append(launch)
        return outputs

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        with torch.no_grad():
            for tensor, before in reversed(self.overwritten):
                tensor.copy_(before)


class Stream:
    """Implements what is used of `torch.cuda.Stream`: everything runs at once."""

    def wait_stream(self, other: Stream) -> None:
        pass


@contextlib.contextmanager
def _stream(stream: Stream) -> Iterator[None]:
    yield


def install(monkeypatch: pytest.MonkeyPatch) -> list[Graph]:
    """Put the stand-in in the place of PyTorch's; return the graphs that are made from now on."""
    made: list[Graph] = []

    def graph() -> Graph:
        made.append(Graph())
        return made[-1]

    monkeypatch.setattr(torch.cuda, "CUDAGraph", graph)
    monkeypatch.setattr(torch.cuda, "graph", _Recorder)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", _stream)
    monkeypatch.setattr(graphs, "can_capture", lambda device: True)
    return made
