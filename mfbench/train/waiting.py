"""How OpenMP's threads, which PyTorch's operations run on, wait for work."""

from __future__ import annotations

import os
import sys

VARIABLE = "OMP_WAIT_POLICY"
KERNEL = "fused"  # the start of the names of the providers that have threads of their own


def let_threads_sleep(provider: str) -> None:
    """Let OpenMP's threads sleep as soon as they finish, for a provider whose own threads need the cores next.

    By default they spin for milliseconds after an update of the parameters, and the kernel's threads wait. OpenMP reads
    the variable when its library is loaded, so nothing is set later; a value that the user has set is kept.
    """
    if provider.startswith(KERNEL) and "torch" not in sys.modules:
        os.environ.setdefault(VARIABLE, "passive")
