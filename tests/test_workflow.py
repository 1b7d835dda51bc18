"""Execute the steps of the example workflow in a user's repository, with and without a regression."""

from __future__ import annotations

import html
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

yaml = pytest.importorskip("yaml", reason="needs pyyaml, which the extra `test` brings")
pytest.importorskip("matplotlib", reason="needs matplotlib, which the extra `report` brings")
needs_shell = pytest.mark.skipif(not all(map(shutil.which, ("git", "bash"))), reason="needs git and bash")

ROOT = Path(__file__).parents[1]
WORKFLOW = yaml.safe_load((ROOT / "examples" / "benchmark.yml").read_text())
STEPS = WORKFLOW["jobs"]["benchmark"]["steps"]
SMALL = "--suite square --size 160x120 --rank 8 --threads 1 --margin 0.2 --budget 2"
KERNEL = "from helper import REPEATS\n" + (ROOT / "examples" / "own_kernels" / "compiled.py").read_text().replace(
    "step = torch.compile(closed_form, dynamic=False)",
    "def step(*arguments):\n    return [closed_form(*arguments) for _ in range(REPEATS)][-1]",
)


class Runner:
    """A pull request's checkout, and a shell for the workflow's steps in which `gh` and `pip` only log their calls."""

    def __init__(self, folder: Path, base: int, head: int) -> None:
        self.work, self.bin = folder / "work", folder / "bin"
        self.work.mkdir()
        self.bin.mkdir()
        self.script("mfbench", f'exec "{sys.executable}" -m mfbench "$@"')
        for name in ("gh", "pip"):
            self.script(name, f'printf "%s\\n" "{name} $*" >> "{folder}/calls"')
        self.calls = folder / "calls"
        self.outputs, self.summary = folder / "outputs", folder / "summary"
        (self.work / "my_kernel.py").write_text(KERNEL)
        self.git("init", "--quiet")
        self.base = self.commit(base)
        self.commit(head)

    def script(self, name: str, line: str) -> None:
        (self.bin / name).write_text(f"#!/bin/sh\n{line}\n")
        (self.bin / name).chmod(0o755)

    def git(self, *arguments: str) -> str:
        name = ("-c", "user.name=test", "-c", "user.email=test@test", "-c", "commit.gpgsign=false")
        return subprocess.run(
            ["git", *name, *arguments], cwd=self.work, check=True, capture_output=True, text=True
        ).stdout

    def commit(self, repeats: int) -> str:
        (self.work / "helper.py").write_text(f"REPEATS = {repeats}\n")
        self.git("add", "my_kernel.py", "helper.py")
        self.git("commit", "--quiet", "--allow-empty", "-m", "a revision")
        return self.git("rev-parse", "HEAD").strip()

    def value(self, text: str) -> str:
        """Substitute expressions as the service does."""
        known = {"github.event.pull_request.base.sha": self.base, "github.event.pull_request.number": "17",
                 "github.token": "secret", "steps.measure.outputs.code": self.code()}  # fmt: skip
        return re.sub(r"\$\{\{ (.*?) \}\}", lambda match: known[match[1]], text)

    def code(self) -> str:
        return self.outputs.read_text().strip().removeprefix("code=") if self.outputs.exists() else ""

    def step(self, step: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        settings = {name: self.value(text) for name, text in (WORKFLOW["env"] | step.get("env", {})).items()}
        environment = os.environ | settings | {
            "OPTIONS": SMALL, "GITHUB_OUTPUT": str(self.outputs), "GITHUB_STEP_SUMMARY": str(self.summary),
            "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        }  # fmt: skip
        assert "${{" not in step["run"]  # an expression in a script would be executed as part of it
        return subprocess.run(
            ["bash", "-e", "-c", step["run"]],
            cwd=self.work,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def job(self) -> list[tuple[str, subprocess.CompletedProcess[str]]]:
        """Run the scripts in order until one fails."""
        done = []
        for step in STEPS:
            if "run" in step:
                done.append((step.get("name", step["run"]), self.step(step)))
                if done[-1][1].returncode:
                    break
        return done


@needs_shell
@pytest.mark.slow
@pytest.mark.parametrize(("head", "fails"), [(6, True), (1, False)], ids=["slower", "the same"])
def test_the_job_fails_on_a_regression_only(tmp_path: Path, head: int, fails: bool) -> None:
    runner = Runner(tmp_path, base=1, head=head)
    done = runner.job()
    name, last = done[-1]
    assert name == "Verdict", (name, last.stdout, last.stderr)
    assert last.returncode == int(fails), last.stdout
    assert last.stdout.startswith("::error::" if fails else ("no regression", "::warning::"))
    installed, commented = runner.calls.read_text().splitlines()
    assert installed == "pip install -c .mfbench/constraints.txt -e .mfbench[report]"
    assert commented == "gh pr comment 17 --body-file summary.md --edit-last --create-if-none"
    comment = (runner.work / "summary.md").read_text()
    assert ("1 slower" in comment) is fails
    assert f"my_kernel.py:step@{runner.base[:12]}" in html.unescape(comment.replace("\\_", "_"))
    assert runner.summary.read_text() == comment
    assert (runner.work / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_what_it_may_do_is_what_it_needs() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read", "pull-requests": "write"}
    assert WORKFLOW[True] == "pull_request"  # `on`, which YAML 1.1 reads as true
    (comment,) = (step for step in STEPS if step.get("name") == "Comment")
    assert "head.repo.full_name == github.repository" in comment["if"]
    assert all(("run" in step) != ("uses" in step) for step in STEPS)
