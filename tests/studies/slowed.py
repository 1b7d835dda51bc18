"""Providers that are slower by a known fraction: for `false_alarms`.

After the step the thread spins on for a part of the time that this very step took, at every size and whatever the
machine's speed is; extra work would have to be measured first, with the noise that it is to test. The next step is
slower for the pause, on a shared machine by about a tenth of it: 5 % is between 5 and 6 in truth.
"""

from __future__ import annotations

import functools
import time
from typing import Any

from kernels import mf_loss_and_grads


def slowed(fraction: float, *arguments: Any) -> Any:
    """The fused step, `fraction` slower."""
    start = time.perf_counter()
    result = mf_loss_and_grads(*arguments)
    end = time.perf_counter()
    until = end + fraction * (end - start)
    while time.perf_counter() < until:
        pass
    return result


fused = functools.partial(slowed, 0.0)
slower_by_3_percent = functools.partial(slowed, 0.03)
slower_by_5_percent = functools.partial(slowed, 0.05)
