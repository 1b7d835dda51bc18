"""The cache folder: where the environment says, else where users keep caches, else a temporary one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

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


def test_a_folder_that_cannot_be_written_is_replaced(tmp_path: Path, found: Callable[..., Path]) -> None:
    (tmp_path / "file").touch()
    folder = found(MFBENCH_CACHE=str(tmp_path / "file" / "cache"))
    assert folder.is_dir()
    assert tmp_path not in folder.parents
    shutil.rmtree(folder)


def test_the_folder_is_chosen_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = cache_folder()
    monkeypatch.setenv("MFBENCH_CACHE", str(tmp_path))
    assert cache_folder() == before
