"""Providers that are slower by a known fraction, because they do more work: for `false_alarms`.

After the whole step, the sines of some numbers are computed: of as many as take the wanted fraction of the step's
time, found by timing both in turns on the case at hand (on a quiet machine: `false_alarms` prints what came of it).
One thread does it, without a call's overhead to speak of: a step on few users costs some 0.1 ms before it has done
anything, which is more than 3 % of a small case.
"""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from kernels import mf_loss_and_grads

ROUNDS, LOOPS = 100, 4
REFINEMENTS = 4
NUMBERS, SINES = (np.linspace(0, 1, 1 << 20), np.empty(1 << 20))
GATED = 2  # evaluations before any is timed, whose memory is watched meanwhile

_calls: Counter[Any] = Counter()
_calibrated: dict[Any, int] = {}


def slowed(fraction: float, *arguments: Any) -> Any:
    """The fused step, `fraction` slower."""
    shape = arguments[5].shape
    _calls[shape] += 1
    if _calls[shape] == GATED + 1:
        _calibrated[shape] = _calibrate(fraction, arguments)
    return _slowed(_calibrated.get(shape, 1), arguments)


slower_by_3_percent = functools.partial(slowed, 0.03)
slower_by_5_percent = functools.partial(slowed, 0.05)


def _slowed(count: int, arguments: Any) -> Any:
    result = mf_loss_and_grads(*arguments)
    np.sin(NUMBERS[:count], out=SINES[:count])
    return result


def _calibrate(fraction: float, arguments: Any) -> int:
    """How many sines make a step `fraction` slower: by the medians over rounds that time it with and without."""
    count = 1000
    for _ in range(REFINEMENTS):
        times = [(_seconds(mf_loss_and_grads, *arguments), _seconds(_slowed, count, arguments)) for _ in range(ROUNDS)]
        whole, more = np.median(times, axis=0)
        count = min(max(1, round(count * min(4, fraction * whole / max(more - whole, 1e-9)))), len(NUMBERS))
    return count


def _seconds(function: Callable[..., Any], *arguments: Any) -> float:
    start = time.perf_counter()
    for _ in range(LOOPS):
        function(*arguments)
    return time.perf_counter() - start
