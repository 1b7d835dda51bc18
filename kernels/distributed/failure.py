"""When a process ends before it has sent its part: the others fail, and say which one they miss."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch.distributed import distributed_c10d

from kernels.distributed.group import Group

PATIENCE = 2.0  # seconds for the other processes of a group to report that their message failed, too


@contextmanager
def naming_missing_processes(group: Group) -> Iterator[None]:
    """Add to an error of communication which processes have not reported one.

    Raises:
        RuntimeError: a collective failed: at once where a connection is lost, else after the group's timeout.
    """
    try:
        yield
    except RuntimeError as error:
        silent = _silent_processes(group)
        if silent is None:
            missing = "the others cannot be asked"
        else:
            missing = f"no word from process {', '.join(map(str, silent))}" if silent else "those of all others, too"
        first_line = str(error).partition("\n")[0]
        along = f" along the mesh's {group.axis}" if group.axis else ""
        raise RuntimeError(
            f"group: a message of process {group.process} of {group.size}{along} failed, and {missing}: {first_line}"
        ) from error


def _silent_processes(group: Group) -> list[int] | None:
    """Return the processes of the group that report no failure; None if that cannot be found out."""
    try:
        store: Any = distributed_c10d._get_default_store()
        keys = [f"kernels.distributed/failed/{group.handle.group_name}/{process}" for process in range(group.size)]
        store.set(keys[group.process], "")
        end = time.monotonic() + PATIENCE
        while True:
            silent = [process for process, key in enumerate(keys) if not store.check([key])]
            if not silent or time.monotonic() > end:
                return silent
            time.sleep(PATIENCE / 20)
    except (RuntimeError, ValueError, OSError):
        return None  # the group is destroyed, or the process that kept the store has ended
