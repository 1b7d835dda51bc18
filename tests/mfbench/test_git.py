"""Git answers for the folder that it is given, in English, whatever the environment says."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from mfbench.git import LOCATION, git

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


@pytest.fixture
def repositories(tmp_path: Path) -> tuple[Path, Path]:
    """Two empty repositories."""
    folders = tmp_path / "asked", tmp_path / "other"
    for folder in folders:
        subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    return folders


@pytest.mark.parametrize(
    ("variable", "place"), [("GIT_DIR", ".git"), ("GIT_WORK_TREE", ""), ("GIT_COMMON_DIR", ".git")]
)
def test_a_hooks_environment_names_no_other_repository(
    repositories: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, variable: str, place: str
) -> None:
    asked, other = repositories
    monkeypatch.setenv(variable, str(other / place))
    assert git(asked, "rev-parse", "--show-toplevel").stdout.decode().strip() == str(asked.resolve())


def test_all_variables_of_a_repositorys_location_are_dropped(repositories: tuple[Path, Path]) -> None:
    listed = git(repositories[0], "rev-parse", "--local-env-vars").stdout.decode().split()
    kept = {"GIT_CONFIG", "GIT_CONFIG_PARAMETERS", "GIT_CONFIG_COUNT"}  # settings of the user's
    assert set(listed) - kept <= set(LOCATION) | {"GIT_INTERNAL_SUPER_PREFIX", "GIT_REF_PARANOIA"}


def test_messages_are_english(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    done = git(tmp_path, "rev-parse", "HEAD")
    assert done.returncode != 0
    assert b"not a git repository" in done.stderr
