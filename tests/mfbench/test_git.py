"""Git on a given folder, also from within a hook of another repository."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from mfbench.git import LOCATION, git

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    return folder


def test_the_folder_decides_and_not_the_environment_of_a_hook(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in LOCATION:
        monkeypatch.setenv(name, str(tmp_path / "elsewhere"))
    done = git(repository, "rev-parse", "--show-toplevel")
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.decode().strip()).samefile(repository)


def test_the_variables_are_those_that_git_lists() -> None:
    listed = subprocess.run(["git", "rev-parse", "--local-env-vars"], capture_output=True, text=True, check=True)
    missing = set(listed.stdout.split()) - set(LOCATION)
    assert all(name.startswith("GIT_CONFIG") or name == "GIT_INTERNAL_SUPER_PREFIX" for name in missing)


def test_messages_are_in_english(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    done = git(tmp_path, "status")
    assert done.returncode == 128
    assert b"not a git repository" in done.stderr


def test_a_time_limit_ends_it(repository: Path) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        git(repository, "-c", "alias.wait=!sleep 30", "wait", timeout_s=0.3)
