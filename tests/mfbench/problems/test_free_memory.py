"""Free memory: that of the machine, or less where a control group limits it."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from mfbench.problems import free_memory as module

GIB = 1 << 30
UNLIMITED = 9223372036854771712  # in version 1


def write_files(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def version_1(folder: str, limit: int, usage: int, cache: int = 0) -> dict[str, str]:
    at = f"sys/fs/cgroup/memory/{folder}"
    statistics = f"cache 5\ninactive_file 1\ntotal_inactive_file {cache}\n"
    return {
        f"{at}/memory.limit_in_bytes": f"{limit}\n",
        f"{at}/memory.usage_in_bytes": f"{usage}\n",
        f"{at}/memory.stat": statistics,
    }


def version_2(folder: str, limit: int | str, usage: int, cache: int = 0) -> dict[str, str]:
    at = f"sys/fs/cgroup/{folder}"
    statistics = f"anon 5\ninactive_file {cache}\nactive_file 7\n"
    return {f"{at}/memory.max": f"{limit}\n", f"{at}/memory.current": f"{usage}\n", f"{at}/memory.stat": statistics}


@pytest.mark.parametrize(
    ("group", "files", "left"),
    [
        pytest.param("0::/job", version_2("job", 8 * GIB, 3 * GIB, GIB), [6 * GIB], id="version 2"),
        pytest.param("0::/job", version_2("job", "max", 3 * GIB), [], id="version 2, unlimited"),
        pytest.param(
            "0::/slice/job",
            version_2("slice/job", "max", 2 * GIB) | version_2("slice", 4 * GIB, 3 * GIB),
            [GIB],
            id="a group around the group is limited",
        ),
        pytest.param("0::/", version_2("", 2 * GIB, GIB), [GIB], id="a container sees its group as the root"),
        pytest.param("0::/job", version_2("job", GIB, 2 * GIB), [0], id="more used than allowed since the limit fell"),
        pytest.param(
            "5:cpu:/other\n4:memory:/job\n0::/",
            version_1("job", 8 * GIB, 3 * GIB, GIB) | version_1("", UNLIMITED, 9 * GIB),
            [6 * GIB, UNLIMITED - 9 * GIB],
            id="version 1",
        ),
        pytest.param(
            "4:cpuset,memory:/docker/0123",
            version_1("", 8 * GIB, 3 * GIB),
            [5 * GIB],
            id="version 1, a container whose path is the host's",
        ),
        pytest.param("0::/", {}, [], id="no control groups mounted"),
    ],
)
def test_what_control_groups_leave(tmp_path, group, files, left):
    write_files(tmp_path, {"proc/self/cgroup": group + "\n"} | files)
    assert list(module.left_in_groups(tmp_path)) == left


def test_systems_without_control_groups_have_none(tmp_path):
    assert list(module.left_in_groups(tmp_path)) == []


def test_the_tightest_limit_counts(monkeypatch):
    available = psutil.virtual_memory().available
    monkeypatch.setattr(module, "left_in_groups", lambda root: iter([5 * available, available // 3]))
    assert module.free_memory() == available // 3
    monkeypatch.setattr(module, "left_in_groups", lambda root: iter([]))
    assert module.free_memory() == pytest.approx(available, rel=0.3)
