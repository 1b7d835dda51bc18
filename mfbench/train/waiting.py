"""How OpenMP's threads, which PyTorch's operations run on, wait for work."""

from __future__ import annotations

import os
import sys

VARIABLE = "OMP_WAIT_POLICY"
KERNEL = "fused"  # the start of the names of the providers that have threads of their own


def let_threads_sleep(provider: str) -> None:
    """Have OpenMP's threads sleep as soon as they are done, for a provider whose own threads need the cores next.

    By default they spin for milliseconds after an update of the parameters, and the kernel's threads wait. OpenMP's
    library reads this from the environment as it is loaded: afterwards nothing changes, nor where the user has chosen.
    """
    if provider.startswith(KERNEL) and "torch" not in sys.modules:
        os.environ.setdefault(VARIABLE, "passive")
