"""`mfbench run --against REV`, in a temporary repository whose revisions differ by planted changes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import mfbench
from mfbench.errors import NotComparable, UsageError
from mfbench.providers import revision
from mfbench.results.records import read
from tests.mfbench.cli_runner import command, mfbench_here
from tests.mfbench.cli_runner import mfbench as mfbench_command

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

ROOT = Path(mfbench.__file__).parent.parent
OPTIONS = ("--suite", "square", "--size", "160x120", "--rank", 8, "--threads", 1, "--budget", 0.5, "--out", "out.jsonl")

TRIES = 4
PLANTS = {
    "slow": """
def mf_loss_and_grads(*arguments, step=mf_loss_and_grads, **options):
    for _ in range(9):
        step(*arguments, **options)
    return step(*arguments, **options)
""",
    "wrong": """
def mf_loss_and_grads(*arguments, step=mf_loss_and_grads, **options):
    loss, grads = step(*arguments, **options)
    return loss, grads._replace(user_bias=2 * grads.user_bias)
""",
    "another interface": """
def mf_loss_and_grads(problem):
    raise NotImplementedError
""",
    "not importable": """
raise ImportError("needs a library of the future")
""",
}


class Repository:
    """The project's packages under git, with a folder for temporary files that can be looked into."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.temporary = folder / "repository", folder / "temporary"
        self.temporary.mkdir()
        ignored = shutil.ignore_patterns("__pycache__")
        for package in ("kernels", "reference", "mfbench"):
            shutil.copytree(ROOT / package, self.folder / package, ignore=ignored)
        self.entry = self.folder / "kernels" / "__init__.py"
        self.honest = self.entry.read_text()
        self.git("init", "--quiet")
        self.commit()
        self.git("tag", "honest")

    def git(self, *arguments: str) -> None:
        name = ("-c", "user.name=test", "-c", "user.email=test@test", "-c", "commit.gpgsign=false")
        subprocess.run(["git", *name, *arguments], cwd=self.folder, check=True, capture_output=True)

    def commit(self) -> None:
        self.git("add", "kernels", "reference", "mfbench")
        self.git("commit", "--quiet", "--allow-empty", "-m", "a revision")

    def plant(self, name: str | None) -> None:
        self.entry.write_text(self.honest + (PLANTS[name] if name else ""))

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command("run", *OPTIONS, *arguments), cwd=self.folder, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env=os.environ | {"TMPDIR": str(self.temporary)},
        )  # fmt: skip

    def run(self, *arguments: object) -> SimpleNamespace:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=240)
        assert not list(self.temporary.glob("mfbench-against-*"))
        assert "Traceback" not in err
        return SimpleNamespace(code=process.returncode, out=out, err=err)

    def decided(self, *arguments: object) -> SimpleNamespace:
        """The run, made again where other programs kept it from a verdict, which is a right answer, too."""
        for _ in range(TRIES):
            (self.folder / "out.jsonl").unlink(missing_ok=True)
            done = self.run(*arguments)
            if done.code != 3:
                break
        return done


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def test_both_sides_are_measured_in_the_same_rounds(repository: Repository) -> None:
    repository.plant("slow")
    repository.commit()
    repository.git("branch", "topic/slow")
    repository.plant(None)  # the working tree is honest again
    done = repository.decided("--against", "topic/slow", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["paired"]
    assert [(case["provider"], case["outcome"]) for case in found["cases"]] == [("fused", "faster")]
    assert 5 < found["cases"][0]["ratio"] < 20
    other, present = read(repository.folder / "out.jsonl")[0]
    assert (other.provider, present.provider) == ("fused@topic/slow", "fused")
    assert present.speedup.baseline == "fused@topic/slow"
    assert present.timing.rounds == other.timing.rounds
    assert all(correctness.ok for record in (other, present) for correctness in record.correctness.values())
    assert (other.env["commit"], other.env["dirty"]) == (present.env["commit"], False)
    assert present.env["dirty"]


@pytest.mark.slow
def test_a_slower_working_tree_is_a_regression(repository: Repository) -> None:
    repository.plant("slow")
    done = repository.decided("--against", "honest", "--provider", "fused,autograd")
    assert done.code == 1, done.err
    assert "slower" in done.out
    assert "2 compared" in done.out
    assert "same rounds" in done.out
    records = read(repository.folder / "out.jsonl")[0]
    assert [record.provider for record in records] == ["fused@honest", "fused", "autograd@honest", "autograd"]
    assert {record.speedup.family for record in records} == {2}


@pytest.mark.slow
def test_a_wrong_working_tree_is_a_regression_and_resume_measures_nothing_twice(repository: Repository) -> None:
    repository.plant("wrong")
    done = repository.run("--against", "honest")
    assert done.code == 1, done.err
    assert "broken" in done.out
    assert "user_bias is off by" in done.out
    records = (repository.folder / "out.jsonl").read_bytes()
    assert repository.run("--against", "honest", "--resume").code == 1
    assert (repository.folder / "out.jsonl").read_bytes() == records
    (repository.folder / "out.jsonl").write_bytes(records[:-100])  # one side is left: both are measured again
    assert repository.run("--against", "honest", "--resume").code == 1
    found, notes = read(repository.folder / "out.jsonl")
    assert [record.provider for record in found] == ["fused@honest", "fused@honest", "fused"]
    assert notes == []
    repository.commit()
    done = repository.run("--against", "honest", "--resume")
    assert done.code == 2
    assert "was measured at commit " in done.err
    repository.git("tag", "--force", "honest")
    repository.git("reset", "--soft", "HEAD~1")
    done = repository.run("--against", "honest", "--resume")
    assert done.code == 2
    assert "--resume: honest is commit " in done.err


@pytest.mark.parametrize(
    ("plant", "message"),
    [
        pytest.param(
            "another interface",
            "no case was timed on both sides of --against HEAD: TypeError: ",
            marks=pytest.mark.slow,
        ),
        ("not importable", "this harness cannot load the kernels of HEAD: "),
    ],
)
def test_a_revision_that_this_harness_cannot_run(repository: Repository, plant: str, message: str) -> None:
    repository.plant(plant)
    repository.commit()
    repository.plant(None)
    done = repository.run("--against", "HEAD")
    assert done.code == 4
    assert f"mfbench: not comparable: {message}" in done.err
    assert len(done.err.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_leave_no_folder_and_keep_finished_records(repository: Repository, number: int, code: int) -> None:
    process = repository.start("--against", "HEAD", "--size", "40x30", "--size", "2048x2048", "--budget", 2)
    out, end = repository.folder / "out.jsonl", time.monotonic() + 120
    while not (out.exists() and out.read_bytes().count(b"\n") == 2):
        assert time.monotonic() < end
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    assert list(repository.temporary.glob("mfbench-against-*"))
    time.sleep(0.5)  # until the records are on the disk, and the next case has begun
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == code
    assert "Traceback" not in stderr
    assert not list(repository.temporary.glob("mfbench-against-*"))
    assert len(read(out)[0]) >= 2
    if number == signal.SIGINT:
        assert "160×120" in stdout


def test_usage_errors(repository: Repository, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(revision, "ROOT", repository.folder)
    for arguments, message in (
        (("--against", "nosuch"), "--against: no revision 'nosuch' in "),
        (("--against", "--help"), "--against: no revision '--help' in "),
        (("--against", "HEAD", "--provider", "closed-form"), "--provider: closed-form is part of the harness"),
        (("--against", "HEAD", "--provider", "fuse"), "--provider: no provider 'fuse'"),
        (("--against", "HEAD", "--baseline", "fused"), "--baseline: with --against"),
    ):
        assert mfbench_here(monkeypatch, "run", "--out", tmp_path / "out.jsonl", *arguments) == 2
        err = capsys.readouterr().err
        assert err.startswith(f"mfbench: {message}")
        assert len(err.splitlines()) == 1


def test_what_a_checkout_holds(repository: Repository, monkeypatch) -> None:
    monkeypatch.setattr(revision, "ROOT", repository.folder)
    repository.plant("slow")
    with revision.checkout("honest") as other:
        assert sorted(path.name for path in other.folder.iterdir()) == ["kernels", "reference"]
        assert (other.folder / "kernels" / "__init__.py").read_text() == repository.honest
        assert other.provider(other.name("fused")) == "fused"
        assert other.provider("fused") is None
    assert not other.folder.exists()
    repository.git("rm", "-r", "--quiet", "--cached", "kernels")
    repository.git("-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "-m", "no kernels")
    with pytest.raises(NotComparable, match=r"HEAD cannot be unpacked: .*kernels"), revision.checkout("HEAD"):
        pass
    shutil.rmtree(repository.folder / ".git")
    with pytest.raises(UsageError, match="expected a git checkout"), revision.checkout("HEAD"):
        pass


def test_files_and_names_are_not_mixed(tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match="either files or names"),
        revision.checkout("HEAD", [str(ROOT / "mfbench" / "cli.py:main"), "fused"]),
    ):
        pass


def test_a_file_outside_of_any_repository_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is in no git repository"), revision.checkout("HEAD", [f"{tmp_path}/a.py:f"]):
        pass


@pytest.mark.slow
def test_a_users_file_is_measured_with_what_lay_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "my_kernel.py").write_text("from helper import step\n")
    (folder / "src" / "helper.py").write_text(
        "from kernels import mf_loss_and_grads\n" + PLANTS["wrong"] + "step = mf_loss_and_grads\n"
    )
    name = ("-c", "user.name=test", "-c", "user.email=test@test", "-c", "commit.gpgsign=false")
    for arguments in (["init", "--quiet"], ["add", "."], [*name, "commit", "--quiet", "-m", "a revision"]):
        subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True)
    (folder / "src" / "helper.py").write_text("from kernels import mf_loss_and_grads as step\n")
    (folder / "src" / "new.py").write_text("from helper import step\n")
    options = ("run", *OPTIONS, "--against", "HEAD")
    done = mfbench_command(*options, "--provider", "my_kernel.py:step", cwd=folder / "src")
    assert done.returncode == 4, done.stderr
    statuses = {record.provider: record.status for record in read(folder / "src" / "out.jsonl")[0]}
    assert statuses == {"my_kernel.py:step@HEAD": "wrong", "my_kernel.py:step": "ok"}
    done = mfbench_command(*options, "--provider", "new.py:step", cwd=folder / "src")
    assert done.returncode == 4
    assert done.stderr == "mfbench: not comparable: --against: HEAD has no new.py [not-in-revision]\n"


def commit_twice(folder: Path) -> None:
    folder.mkdir()
    (folder / "mine.py").write_text("from reference import autograd_loss_and_grads as step\n")
    name = ("-c", "user.name=test", "-c", "user.email=test@test", "-c", "commit.gpgsign=false")
    commit = [*name, "commit", "--quiet", "--allow-empty", "-m", "a revision"]
    for arguments in (["init", "--quiet"], ["add", "."], commit, commit):
        subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.mark.parametrize("wanted", ["HEAD~1", "v1.0", "0123456"])
def test_a_revision_that_a_shallow_clone_lacks(tmp_path: Path, wanted: str) -> None:
    commit_twice(tmp_path / "whole")
    source = f"file://{tmp_path / 'whole'}"
    clone = ["git", "clone", "--quiet", "--depth", "1", source, str(tmp_path / "shallow")]
    subprocess.run(clone, check=True, capture_output=True)
    for folder, hint in (("shallow", True), ("whole", False)):
        revision_there = wanted if folder == "shallow" else "none"
        with (
            pytest.raises(UsageError, match="no revision") as raised,
            revision.checkout(revision_there, [f"{tmp_path / folder / 'mine.py'}:step"]),
        ):
            pass
        assert ("git fetch --unshallow" in raised.value.message) == hint


@pytest.mark.parametrize("wanted", ["HEAD", "HEAD~1", "none"])
def test_a_repository_of_another_user(tmp_path: Path, monkeypatch, wanted: str) -> None:
    commit_twice(tmp_path / "theirs")
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    with (
        pytest.raises(UsageError, match=r"another user owns; if you trust it, `git config .* safe.directory") as raised,
        revision.checkout(wanted, [f"{tmp_path / 'theirs' / 'mine.py'}:step"]),
    ):
        pass
    assert raised.value.code == "foreign-owner"


def test_a_hook_of_another_repository_does_not_change_the_revision(tmp_path: Path, monkeypatch) -> None:
    commit_twice(tmp_path / "mine")
    commit_twice(tmp_path / "other")
    subprocess.run(["git", "tag", "only-here"], cwd=tmp_path / "mine", check=True)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    with revision.checkout("only-here", [f"{tmp_path / 'mine' / 'mine.py'}:step"]) as other:
        assert other.repository == tmp_path / "mine"
