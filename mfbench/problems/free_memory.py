"""How much memory can be allocated: what the machine has free, within the limits of control groups (containers)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Controller(NamedTuple):
    """Where a version of Linux's control groups says what a group may use and uses."""

    mount: str
    limit: str
    usage: str
    cache: str  # in memory.stat: pages of files, which are dropped before anything is killed


VERSION_1 = Controller("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
VERSION_2 = Controller("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")


def free_memory() -> int:
    """Return the bytes of the host's memory that this process can allocate without swapping."""
    import psutil  # here, as `gpu-check` draws inputs where it is missing

    return min([int(psutil.virtual_memory().available), *left_in_groups(Path("/"))])


def left_in_groups(root: Path) -> Iterator[int]:
    """Yield the bytes that each limited control group around this process has left, as Kubernetes counts them.

    Args:
        root: of the file system that has `proc` and `sys`.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers or "memory" in controllers.split(","):
            controller = VERSION_1 if controllers else VERSION_2
            mount = root / controller.mount
            group = mount / path.lstrip("/")
            if not group.is_dir():  # a container sees its group as the mount itself
                group = mount
            for folder in (group, *group.parents):
                yield from _left(folder, controller)
                if folder == mount:
                    break


def _left(group: Path, controller: Controller) -> Iterator[int]:
    try:
        limit, usage = (int((group / name).read_text()) for name in (controller.limit, controller.usage))
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        yield max(0, limit - usage + int(statistics[controller.cache]))
    except (OSError, ValueError, KeyError):  # no limit: "max", or no file at the root of version 2
        return
