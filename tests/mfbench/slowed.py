"""Providers that are slower by a known fraction, because they do more work: for `false_alarms`.

After the whole step, the sines of some numbers are computed: of as many as take the wanted fraction of the step's
time, found by timing both in turns on the case at hand (on a quiet machine: `false_alarms` prints what came of it).
One thread does it, without a call's overhead to speak of: a step on few users costs some 0.1 ms before it has done
anything, which is more than 3 % of a small case.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from kernels import mf_loss_and_grads

ROUNDS = 200
REFINEMENTS = 3
NUMBERS, SINES = (np.linspace(0, 1, 1 << 20), np.empty(1 << 20))

_calibrated: dict[Any, int] = {}


def slowed(fraction: float, *arguments: Any) -> Any:
    """The fused step, `fraction` slower."""
    case = tuple(argument.data_ptr() if hasattr(argument, "data_ptr") else argument for argument in arguments)
    if case not in _calibrated:
        _calibrated.clear()
        _calibrated[case] = _calibrate(fraction, lambda: mf_loss_and_grads(*arguments))
    result = mf_loss_and_grads(*arguments)
    _work(_calibrated[case])
    return result


slower_by_3_percent = functools.partial(slowed, 0.03)
slower_by_5_percent = functools.partial(slowed, 0.05)


def _work(count: int) -> None:
    np.sin(NUMBERS[:count], out=SINES[:count])


def _calibrate(fraction: float, step: Callable[[], Any]) -> int:
    """How many sines take `fraction` of a step's time: the median over rounds that time both."""
    count = 1000
    for _ in range(REFINEMENTS):
        times = [(_seconds(lambda count=count: _work(count)), _seconds(step)) for _ in range(ROUNDS)]
        work, whole = np.quantile(times, 0.25, axis=0)  # the quarter that other jobs disturbed least
        count = min(max(1, round(count * fraction * whole / work)), len(NUMBERS))
    return count


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
