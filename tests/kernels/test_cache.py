"""The cache folder: where the environment says, else where users keep caches, else a temporary one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from kernels import cache
from kernels.cache import cache_folder


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return the cache folder in a given environment, with nothing remembered."""

    def found(**environment: str) -> Path:
        for name in ("MFBENCH_CACHE", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return cache_folder.__wrapped__()

    return found


def test_the_environment_chooses(tmp_path: Path, found: Callable[..., Path]) -> None:
    home, xdg, own = (str(tmp_path / name) for name in ("home", "xdg", "own"))
    assert found(HOME=home) == tmp_path / "home" / ".cache" / "mfbench"
    assert found(HOME=home, XDG_CACHE_HOME=xdg) == tmp_path / "xdg" / "mfbench"
    assert found(HOME=home, XDG_CACHE_HOME=xdg, MFBENCH_CACHE=own) == tmp_path / "own"
    assert (tmp_path / "own").is_dir()
    assert not list((tmp_path / "own").iterdir())


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Move the folder of temporary files, and leave it as the only one."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setattr(cache, "TEMPORARY_FOLDERS", ())
    return folder


def make_noexec(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    def statvfs(path: Path, statvfs=os.statvfs):
        return SimpleNamespace(f_flag=os.ST_NOEXEC) if folder in (path, *path.parents) else statvfs(path)

    monkeypatch.setattr(os, "statvfs", statvfs)


def test_a_folder_that_cannot_be_written_is_replaced_by_one_of_the_user(
    tmp_path: Path, temporary: Path, found: Callable[..., Path]
) -> None:
    (tmp_path / "file").touch()
    environments = ({"MFBENCH_CACHE": f"{tmp_path}/file/cache"}, {"XDG_CACHE_HOME": f"{tmp_path}/file"})
    folders = {found(HOME=str(tmp_path / "file"), **environment) for environment in ({}, *environments)}
    assert len(folders) == 1
    folder = folders.pop()
    assert list(temporary.iterdir()) == [folder]
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(not hasattr(os, "ST_NOEXEC"), reason="the system does not report noexec")
def test_a_folder_mounted_noexec_is_replaced(tmp_path: Path, temporary: Path, found, monkeypatch) -> None:
    make_noexec(monkeypatch, tmp_path / "home")
    assert found(HOME=str(tmp_path / "home")).parent == temporary
    assert found(MFBENCH_CACHE=str(tmp_path / "home" / "own")).parent == temporary
    make_noexec(monkeypatch, tmp_path)
    with pytest.raises(OSError, match=r"no folder that can be written and hold libraries.*set MFBENCH_CACHE"):
        found(HOME=str(tmp_path / "home"))


@pytest.mark.parametrize("trap", ["link", "writable by others", "file"])
def test_a_folder_that_another_user_could_have_prepared_is_not_used(
    tmp_path: Path, temporary: Path, found, monkeypatch, trap: str
) -> None:
    (tmp_path / "file").touch()
    (temporary / "second").mkdir()
    monkeypatch.setattr(cache, "TEMPORARY_FOLDERS", (str(temporary / "second"),))
    first = temporary / f"mfbench-cache-{os.getuid()}"
    if trap == "link":
        (tmp_path / "theirs").mkdir(mode=0o700)
        first.symlink_to(tmp_path / "theirs")
    elif trap == "file":
        first.touch()
    else:
        first.mkdir()
        first.chmod(0o777)
    assert found(MFBENCH_CACHE=str(tmp_path / "file")) == temporary / "second" / first.name


@pytest.mark.parametrize("environment", [{}, {"MFBENCH_CACHE": "~/cache"}, {"XDG_CACHE_HOME": "~/.cache"}])
def test_no_folder_is_called_tilde(tmp_path: Path, temporary: Path, found, monkeypatch, environment) -> None:
    monkeypatch.chdir(tmp_path)
    assert "~" not in str(found(HOME=str(tmp_path / "home"), **environment))
    assert tmp_path / "home" in found(HOME=str(tmp_path / "home"), **environment).parents
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # a user without an entry in the password file
    assert found(**environment).parent == temporary
    assert not (tmp_path / "~").exists()


def test_a_relative_xdg_folder_is_ignored(tmp_path: Path, found, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert found(HOME=str(tmp_path / "home"), XDG_CACHE_HOME="here") == tmp_path / "home" / ".cache" / "mfbench"
    assert not (tmp_path / "here").exists()
    assert found(MFBENCH_CACHE="here") == tmp_path / "here"


def test_the_folder_is_chosen_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = cache_folder()
    monkeypatch.setenv("MFBENCH_CACHE", str(tmp_path))
    assert cache_folder() == before
