"""The step's operations, for PyTorch's `FlopCounterMode`."""

from __future__ import annotations

import math
import sys
from typing import Any

import torch
from torch.utils import _python_dispatch

MODULE = "torch.utils.flop_counter"


def of_step(*shapes: Any, **__: Any) -> int:
    """Return the operations of a step, which takes three products per rating, from its arguments' shapes."""
    return 3 * of_loss(*shapes)


def of_loss(*shapes: Any, **__: Any) -> int:
    """Return the operations of a loss without gradients, which takes one product per rating."""
    user_factors, _, _, _, _, ratings, *_ = shapes
    return int(2 * math.prod(ratings) * user_factors[1])


def register() -> None:
    """Make PyTorch's flop counter, and the counters in progress, know the operators.

    Called before an operator is, since importing the counter's module would import Triton, which takes 0.3 s.
    """
    counter = sys.modules.get(MODULE)
    if counter is None:
        return
    formulas = {torch.ops.mfbench.step: of_step, torch.ops.mfbench.loss: of_loss}
    for target, formula in formulas.items():
        if target not in counter.flop_registry:
            counter.register_flop_formula(target)(formula)
    for mode in _python_dispatch._get_current_dispatch_mode_stack():
        if isinstance(mode, counter._FlopCounterMode):  # it copied the registry when it was made
            for target in formulas:
                mode.counter.flop_registry.setdefault(target, counter.flop_registry[target])
