"""What a record says of the machine and of the file that a provider came from."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch

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
    assert found["versions"]["torch"] == torch.__version__
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
