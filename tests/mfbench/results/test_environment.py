"""What a record says of the machine and of the file that a provider came from."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch

from kernels.cpu import threads
from mfbench.results import environment


def test_the_environment_is_plain_json_with_the_present_threads() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        found = environment.describe("cpu")
    finally:
        torch.set_num_threads(before)
    assert json.loads(json.dumps(found)) == found
    assert found["threads"] == 3
    assert found["cpus"] >= 1
    assert torch.__version__.startswith(found["versions"]["torch"])  # which on PyPI lacks the build, such as +cu130
    assert found["cpu"]
    assert "gpu" not in found


def test_a_package_that_is_missing_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "PACKAGES", ("torch", "no-such-package"))
    assert environment.versions()["no-such-package"] == "none"


def test_a_users_file_is_identified_by_its_contents(tmp_path: Path) -> None:
    one, other = tmp_path / "one.py", tmp_path / "other.py"
    one.write_text("def step(): ...\n")
    other.write_text("def step(): ...\n")
    digest = environment.source(f"{one}:step")
    assert digest
    assert environment.source(f"{other}:step") == digest
    other.write_text("def step(): pass\n")
    assert environment.source(f"{other}:step") not in (None, digest)


def test_a_users_module_is_identified_by_its_contents(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "pkg" / "steps").mkdir(parents=True)
    (tmp_path / "pkg" / "__init__.py").write_text("raise ImportError('never imported')\n")
    monkeypatch.chdir(tmp_path)
    found = set()
    for content in ("def step(): ...\n", "def step(): pass\n"):
        (tmp_path / "pkg" / "steps" / "mine.py").write_text(content)
        found.add(environment.source("pkg.steps.mine:step"))
        assert environment.source("pkg.steps.mine:step") == environment.source("pkg/steps/mine.py:step")
    assert len(found - {None}) == 2
    assert environment.source("pkg.none:step") is None


@pytest.mark.parametrize("provider", ["fused", "none.py:step", "mine.py:step@HEAD"])
def test_what_has_no_file_of_its_own_has_no_digest(tmp_path: Path, monkeypatch, provider: str) -> None:
    (tmp_path / "mine.py").touch()
    monkeypatch.chdir(tmp_path)
    assert environment.source(provider) is None


def test_commit_and_changes_of_a_repository(tmp_path: Path) -> None:
    assert environment._git(tmp_path, "rev-parse", "HEAD") is None
    name = ("-c", "user.name=test", "-c", "user.email=test@test", "-c", "commit.gpgsign=false")
    for arguments in (["init", "--quiet"], [*name, "commit", "--quiet", "--allow-empty", "-m", "x"]):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True, capture_output=True)
    assert len(environment._git(tmp_path, "rev-parse", "HEAD") or "") == 40
    assert environment._git(tmp_path, "status", "--porcelain") == ""
    (tmp_path / "new").touch()
    assert environment._git(tmp_path, "status", "--porcelain") == "?? new"
    assert environment._git(tmp_path, "no-such-command") is None


@pytest.mark.parametrize(
    "names",
    [("GIT_DIR",), ("GIT_DIR", "GIT_WORK_TREE"), ("GIT_DIR", "GIT_INDEX_FILE"), ("GIT_WORK_TREE",), ("GIT_INDEX_FILE",),
     ("GIT_OBJECT_DIRECTORY",), ("GIT_COMMON_DIR",)],
)  # fmt: skip
def test_a_hook_of_another_repository_does_not_change_the_commit(tmp_path: Path, monkeypatch, names) -> None:
    folders = tmp_path / "own", tmp_path / "other"
    for folder in folders:
        folder.mkdir()
        name = ("-c", "user.name=test", "-c", "user.email=test@test", "-c", "commit.gpgsign=false")
        for arguments in (["init", "--quiet"], [*name, "commit", "--quiet", "--allow-empty", "-m", folder.name]):
            subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True)
    expected = environment._git(folders[0], "rev-parse", "HEAD")
    places = {"GIT_DIR": ".git", "GIT_WORK_TREE": "", "GIT_INDEX_FILE": ".git/index", "GIT_COMMON_DIR": ".git",
              "GIT_OBJECT_DIRECTORY": ".git/objects"}  # fmt: skip
    for name in names:
        monkeypatch.setenv(name, str(folders[1] / places[name]))
    assert environment._git(folders[0], "rev-parse", "HEAD") == expected
    assert environment._git(folders[0], "rev-parse", "--show-toplevel") == str(folders[0])
    assert environment._git(folders[0], "status", "--porcelain") == ""


@pytest.mark.parametrize(("more", "noted"), [(0, False), (1, True), (4000, True)])
def test_more_threads_than_cpus_are_noted(capsys, more: int, noted: bool) -> None:
    threads = environment.usable_cpus() + more
    environment.check_threads(threads)
    assert (f"{threads} threads share " in capsys.readouterr().err) == noted
    environment.check_threads(None)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("asked", "of_pytorch", "quota"), [(3, 1, 2), (None, 3, 2), (2, 1, 1), (None, 2, 1)])
def test_more_threads_than_a_container_may_use_are_noted(monkeypatch, capsys, asked, of_pytorch, quota) -> None:
    monkeypatch.setattr(environment, "usable_cpus", lambda: 64)
    monkeypatch.setattr(threads, "cpu_quota", lambda: quota)
    monkeypatch.setattr(torch, "get_num_threads", lambda: of_pytorch)
    environment.check_threads(asked)
    share = f"--threads: {asked or of_pytorch} threads share {quota} CPU{'s' if quota > 1 else ''} and wait"
    assert share in capsys.readouterr().err
    environment.check_threads(quota)
    assert capsys.readouterr().err == ""
