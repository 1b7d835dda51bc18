"""Providers slowed down by a known fraction, for `false_alarms`.

After each step the thread spins for that fraction of the time the step took, so the slowdown holds at any size and
machine speed without calibration. The pause also slows the next step, on a shared machine by about a tenth of the
pause: a nominal 5 % is between 5 and 6 %.
"""

from __future__ import annotations

import functools
import time
from typing import Any

from kernels import mf_loss_and_grads


def slowed(fraction: float, *arguments: Any) -> Any:
    """Run the fused step and spin for `fraction` of its time."""
    start = time.perf_counter()
    result = mf_loss_and_grads(*arguments)
    end = time.perf_counter()
    until = end + fraction * (end - start)
    while time.perf_counter() < until:
        pass
    return result


fused = functools.partial(slowed, 0.0)
fused_again = functools.partial(slowed, 0.0)
slower_by_3_percent = functools.partial(slowed, 0.03)
slower_by_5_percent = functools.partial(slowed, 0.05)
