"""The worker's side of the audit: change the global bias before each evaluation, and report outputs of some."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from mfbench.correctness.audit import projection

# Saved before user code can monkey-patch them
item, detach, cpu = torch.Tensor.item, torch.Tensor.detach, torch.Tensor.cpu
resolve_neg, numpy = torch.Tensor.resolve_neg, torch.Tensor.numpy


class Challenge(NamedTuple):
    """What the probe does during one sample."""

    biases: list[float]  # the global bias of each evaluation
    watched: frozenset[int]  # evaluations whose loss and bias gradient are reported


class Observation(NamedTuple):
    """Outputs of one evaluation within a sample."""

    turn: int
    loss: float
    d_bias: float  # gradient of the global bias


class Probe:
    """Hooks around the evaluations of one sample; implements `mfbench.measure.devices.base.Hooks`."""

    def __init__(self, challenge: Challenge, biases: Sequence[torch.Tensor]) -> None:
        """Prepare for a sample whose evaluations take turns on several copies of the inputs.

        Args:
            challenge: from the auditor.
            biases: the global bias tensor of each copy.
        """
        self._biases, self._watched = challenge
        self._writers = [_writer(bias) for bias in biases]
        self.observations: list[Observation] = []

    def before(self, turn: int) -> None:
        self._writers[turn % len(self._writers)](self._biases[turn])

    def after(self, turn: int, outputs: Any) -> None:
        if turn in self._watched:
            loss, (*_, d_bias) = outputs
            self.observations.append(Observation(turn, _number(loss), _number(d_bias)))


def project(outputs: Sequence[torch.Tensor], bits: bytes) -> list[float]:
    """Return the signed sum of each output's entries, with the signs that the bytes encode."""
    signs = projection.signs(bits)
    return [projection.project(_array(tensor), signs) for tensor in outputs]


def poison(outputs: Sequence[torch.Tensor]) -> None:
    """Overwrite outputs with NaN, so that memory the next evaluation reuses does not hold the right answer already."""
    for tensor in outputs:
        if not tensor.dtype.is_floating_point:
            continue  # the gate rejects it for its dtype
        if tensor.device.type == "cpu" and tensor.dtype != torch.bfloat16:  # NumPy has no bfloat16
            _array(tensor).fill(np.nan)
        else:
            tensor.detach().fill_(float("nan"))


def _array(tensor: torch.Tensor) -> np.ndarray:
    """View a tensor as a NumPy array, which wakes no threads that the next sample would feel."""
    return numpy(resolve_neg(cpu(detach(tensor))))


def _number(value: Any) -> float:
    number: float = item(value) if isinstance(value, torch.Tensor) else np.asarray(value).item()
    return number


def _writer(bias: torch.Tensor) -> Callable[[float], Any]:
    """Return a function that writes a number: on a CPU without PyTorch's knowledge, on a GPU in stream order."""
    if bias.device.type == "cpu":
        return functools.partial(bias.detach().numpy().__setitem__, 0)
    return bias.detach().fill_
