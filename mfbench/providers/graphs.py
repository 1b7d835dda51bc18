"""Capture what a function enqueues on a GPU as a CUDA graph, whose replay costs the host one launch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import torch

from mfbench.problems.inputs import Inputs

T = TypeVar("T")


class NeedsGpu(RuntimeError):
    """The provider runs on a GPU only."""


WARM_UPS = 3  # calls before a capture, as in PyTorch's notes on CUDA graphs


class Captured(Generic[T]):
    """A function that has been captured. A call replays it and returns the same tensors, with their new contents."""

    def __init__(self, function: Callable[[], T], warm_up: Callable[[], object] | None = None) -> None:
        """Warm up on a side stream, then capture the function.

        Args:
            function: reads and writes the same memory in every call, and does not wait for the device.
            warm_up: called `WARM_UPS` times, so that compilers and libraries initialise themselves outside the
                capture; None: the function itself.

        Raises:
            RuntimeError: the function does something that a graph cannot hold, such as waiting for the device.
        """
        self._function = function  # keeps the tensors alive whose addresses the graph holds
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                (warm_up or function)()
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._result = function()

    def __call__(self) -> T:
        self._graph.replay()
        return self._result


def can_capture(device: torch.device) -> bool:
    """Return whether work on the device can be captured: on CUDA, and on ROCm, which PyTorch calls CUDA, too."""
    return device.type == "cuda"


def in_graph(prepare: Callable[[Inputs], Callable[[], T]]) -> Callable[[Inputs], Callable[[], T]]:
    """Return a provider's `prepare` whose step is captured in its first call, and replayed in every other."""

    def prepared(inputs: Inputs) -> Callable[[], T]:
        device = inputs.user_factors.device
        if not can_capture(device):
            raise NeedsGpu(f"a CUDA graph needs tensors on a GPU, got {device}")
        step = prepare(inputs)
        captured: Captured[T] | None = None

        def replayed() -> T:
            nonlocal captured
            captured = captured or Captured(step)
            return captured()

        return replayed

    return prepared
